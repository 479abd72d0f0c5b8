"""Finding the configuration that builds a pruned network.

No table says which architecture can express what: that changes from version to version. A change
of a configuration is tried by building it (without memory) and kept if fewer of its shapes and
integers differ from the network's, and none that agreed before.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rlprune.errors import ConfigError
from rlprune.integrations.hf.architecture import (
    Residue,
    Signature,
    dense_class,
    differences,
    is_stand_in,
    residue,
    signature,
    stock,
)
from rlprune.integrations.hf.layers import Cuts, close_up
from rlprune.structure.twin import copied

SIZE = re.compile(r"head|inter|ffn|d_ff|inner|hidden|dim|d_model|n_embd|vocab|expert|layer|d_kv")
NO_SIZE = re.compile(
    r"_ids?$|^max|^min|num_labels|type_vocab|patch|image|kernel|window|pos|conv|chunk|act|eps"
    r"|drop|prob|std|norm|(?<!^n)_layer$|layerdrop|groups$"
)
HEADS = re.compile(r"head|d_kv")
CANDIDATES = 3
LLAMA_ONLY = ("model_type", "attention_bias", "mlp_bias", "pretraining_tp", "architectures")

Key = tuple[str, ...]
Differences = Mapping[tuple[str, str], tuple[Any, Any]]


@dataclass(frozen=True)
class Expression:
    """A network as a class of transformers, its configuration, and what that leaves unsaid.

    Attributes:
        kind: the class; the network's own or one that computes the same (a Mistral for a Llama).
        config: the configuration; not the network's own object.
        residue: what it cannot say; empty where plain ``from_pretrained`` builds the network.
        model: the network that it says: the given one, or a copy of it without idle layers.
    """

    kind: type[Any]
    config: Any
    residue: Residue
    model: Any


def express(model: Any) -> Expression:
    """Find the configuration of transformers that builds a network.

    Args:
        model: a network of transformers, pruned or not; not changed.

    Returns:
        The class, configuration and rest, which is empty if some configuration builds the network.

    Raises:
        ConfigError: it is no network of transformers, or modules were replaced in it.
    """
    if any(is_stand_in(module) for module in model.modules()):
        tensors = (*model.parameters(), *model.buffers())
        closed = copied(model, {id(tensor): tensor for tensor in tensors})
        with contextlib.suppress(ConfigError):  # where it cannot count layers
            return _express(closed, close_up(closed))
    return _express(model, {})


def _express(model: Any, cuts: Cuts) -> Expression:
    kind = dense_class(model)
    config = copy.deepcopy(model.config)
    for name in ("pruned", "auto_map"):
        config.__dict__.pop(name, None)
    best: tuple[type[Any], Any, Differences] | None = None
    for other, start, want in _starts(kind, config, signature(model)):
        reached, left = _Descent(other, want, cuts).from_(start)
        if best is None or not left:
            best = other, reached, left
        if not left:
            break
    assert best is not None
    return Expression(best[0], best[1], residue(model, best[2]), model)


def follow(model: Any) -> Any:
    """Let ``model.config`` say what the network is: heads, widths, vocabulary, layers.

    Args:
        model: a pruned network of transformers; its configuration is replaced by one that agrees
            with it where the architecture can say it, and layers that do nothing are taken out.

    Returns:
        The same network.
    """
    found = express(model)
    if found.model is not model:
        close_up(model)
    if found.kind is dense_class(model):
        attention = model.config._attn_implementation
        for module in model.modules():
            if getattr(module, "config", None) is model.config and module is not model:
                module.config = found.config
        model.config = found.config
        found.config._attn_implementation = attention
    return model


def _starts(
    kind: type[Any], config: Any, want: Signature
) -> Iterator[tuple[type[Any], Any, Signature]]:
    """The network's own class, then one with the same layers and more freedom."""
    yield kind, config, want
    if type(config).__name__ != "LlamaConfig":
        return
    # Mistral without its window is Llama with a free head size
    if config.attention_bias or config.mlp_bias or getattr(config, "pretraining_tp", 1) != 1:
        return
    import transformers

    other = getattr(transformers, kind.__name__.replace("Llama", "Mistral"), None)
    if other is not None:
        options = {k: v for k, v in config.to_dict().items() if k not in LLAMA_ONLY}
        recast = transformers.MistralConfig(**options | {"sliding_window": None})
        recast._attn_implementation = config._attn_implementation
        classes = {
            key: name.replace("Llama", "Mistral") for key, name in want.items() if key[0] == "class"
        }
        yield other, recast, want | classes


class _Descent:
    """Changes a configuration as long as that brings what it builds nearer to a network.

    Args:
        kind: the class that builds it.
        want: what it should be.
        cuts: layers that were taken out of it; lists with an entry for each layer follow.
    """

    def __init__(self, kind: type[Any], want: Signature, cuts: Cuts) -> None:
        self._kind, self._want, self._cuts = kind, want, cuts

    def from_(self, config: Any) -> tuple[Any, Differences]:
        """The nearest configuration from one on, and what is still different."""
        left = _left(self._kind, config, self._want)
        if not left:
            return config, left
        fixed = _with_head_size(config, self._want)
        less = _left(self._kind, fixed, self._want)
        if len(less) <= len(left):
            found = self._steps(fixed, less)
            if vars(fixed).keys() == vars(config).keys() or len(found[1]) < len(left):
                return found
        return self._steps(config, left)

    def _steps(self, config: Any, left: Differences) -> tuple[Any, Differences]:
        while left:
            for change in _changes(config, left):
                changed, less = self._tried(config, change, left)
                if less is not left:
                    config, left = changed, less
                    break
            else:
                break
        return config, left

    def _tried(
        self, config: Any, change: Mapping[Key, int], left: Differences
    ) -> tuple[Any, Differences]:
        """A configuration with a change, if that is an improvement; else the same objects."""
        changed = copy.deepcopy(config)
        try:
            for key, value in change.items():
                node = changed
                for part in key[:-1]:
                    node = getattr(node, part)
                self._shorten(node, getattr(node, key[-1]), value)
                setattr(node, key[-1], value)
                if hasattr(node, "validate"):
                    node.validate()
            less = _left(self._kind, changed, self._want)
        except Exception:  # whatever transformers raises for a configuration it does not take
            return config, left
        return (changed, less) if less.keys() < left.keys() else (config, left)

    def _shorten(self, config: Any, before: int | None, after: int) -> None:
        kept = self._cuts.get(before or 0, ())
        if len(kept) != after:
            return
        for name, value in list(vars(config).items()):
            if isinstance(value, list) and len(value) == before:
                setattr(config, name, [value[at] for at in kept])


def _with_head_size(config: Any, want: Signature) -> Any:
    """A copy that names the size of heads, which else is the hidden width over their number."""
    sizes = {v for (k, n), v in want.items() if k == "attribute" and n.endswith(".head_dim")}
    fixed = copy.deepcopy(config)
    if len(sizes) == 1 and not _nested(config):
        fixed.head_dim = sizes.pop()
    return fixed


def _nested(config: Any) -> bool:
    return any(hasattr(value, "model_type") for value in vars(config).values())


def _left(kind: type[Any], config: Any, want: Signature) -> Differences:
    found = differences(want, signature(stock(kind, copy.deepcopy(config))))
    return {
        key: pair
        for key, pair in found.items()
        if not (key[0] == "attribute" and None in pair)  # kept by one of the two builds only
    }


def _changes(config: Any, left: Differences) -> Iterator[dict[Key, int]]:
    """Changes of one or two sizes that would explain differences, the likeliest first."""
    single: list[tuple[int, Key, int]] = []
    for key, value in _sizes(config):
        votes: Counter[int] = Counter()
        for (kind, _), (wanted, there) in left.items():
            if kind in ("tensor", "attribute", "length"):
                votes.update(_explanations(value, wanted, there))
        single += [(n, key, new) for new, n in votes.most_common(CANDIDATES) if new != value]
    single.sort(key=lambda item: -item[0])
    for _, key, new in single:
        yield {key: new}
    heads = [item for item in single if HEADS.search(item[1][-1])]
    pairs = [(a, b) for a, b in itertools.combinations(heads, 2) if a[1] != b[1]]
    for (_, key, new), (_, other, also) in sorted(pairs, key=lambda p: -p[0][0] - p[1][0]):
        yield {key: new, other: also}


def _sizes(config: Any, path: Key = ()) -> Iterator[tuple[Key, int | None]]:
    for name, value in list(vars(config).items()):
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            yield from _sizes(value, (*path, name))
        elif name.startswith("_") or not SIZE.search(name) or NO_SIZE.search(name):
            continue
        elif (type(value) is int and value > 0) or value is None:
            yield (*path, name), value


def _explanations(value: int | None, wanted: Any, there: Any) -> Iterator[int]:
    """Values of a size under which something that is there would be as wanted."""
    if isinstance(wanted, tuple) and isinstance(there, tuple) and len(wanted) == len(there):
        for a, b in zip(wanted, there, strict=True):
            if a != b:
                yield from _explanations(value, a, b)
    elif type(wanted) is int and type(there) is int and wanted > 0 and there > 0:
        if value is None:
            yield wanted
        elif there % value == 0 and wanted % (there // value) == 0:
            yield wanted // (there // value)
