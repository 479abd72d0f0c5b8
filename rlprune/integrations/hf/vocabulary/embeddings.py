"""A model with fewer tokens: embeddings, head, bias, and every number of a token it knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.errors import ConfigError
from rlprune.structure.twin import copied

_TOKENS = ("_token_id", "_token_ids", "suppress_tokens", "forced_decoder_ids", "bad_words_ids")


def rows(model: Any) -> int:
    """How many tokens a model has rows for.

    Raises:
        ConfigError: it has no embedding of tokens.
    """
    embedding = _embedding(model)
    return int(embedding.weight.shape[0])


def special_ids(model: Any) -> set[int]:
    """Numbers of tokens that a model's configurations name on their own (not lists to suppress)."""
    size = rows(model)
    found: set[int] = set()
    for config in configurations(model):
        for name, value in vars(config).items():
            if name.endswith(("_token_id", "_token_ids")) or name == "forced_decoder_ids":
                found |= {at for at in _integers(value) if 0 <= at < size}
    for module in model.modules():
        at = getattr(module, "padding_idx", None)
        if type(at) is int and 0 <= at < size and module is _embedding(model):
            found.add(at)
    return found


def configurations(model: Any) -> Iterator[Any]:
    """The configurations of a model, nested ones and that of generation among them."""
    seen = set()

    def walk(config: Any) -> Iterator[Any]:
        if id(config) in seen:
            return
        seen.add(id(config))
        yield config
        for value in list(vars(config).values()):
            if hasattr(value, "model_type") and hasattr(value, "to_dict"):
                yield from walk(value)

    for module in model.modules():
        for name in ("config", "generation_config"):
            config = vars(module).get(name)
            if config is not None and hasattr(config, "to_dict"):
                yield from walk(config)


def with_tokens(model: Any, kept: Tensor) -> Any:
    """A copy of a model for some of its tokens.

    Args:
        model: not changed.
        kept: old ids in the order of the new ones, [tokens].

    Raises:
        ConfigError: positions are counted from the padding token's number, which changes.
    """
    size = rows(model)
    new = {int(old): at for at, old in enumerate(kept.tolist())}
    memo: dict[int, Any] = {}
    for tensor, dim in _vocabulary_tensors(model, size):
        small = tensor.detach().index_select(dim, kept.to(tensor.device))
        memo[id(tensor)] = (
            nn.Parameter(small, requires_grad=tensor.requires_grad)
            if isinstance(tensor, nn.Parameter)
            else small
        )
    _check_padding(model, size, new)
    cut = {id(tensor) for tensor in memo.values()}  # copying adds to the memo
    smaller = copied(model, memo)
    module: Any
    for module in smaller.modules():
        weight = module._parameters.get("weight")
        if isinstance(module, nn.Embedding) and id(weight) in cut:
            module.num_embeddings = len(kept)
            if module.padding_idx is not None:
                module.padding_idx = new[module.padding_idx]
        elif isinstance(module, nn.Linear) and id(weight) in cut:
            module.out_features = len(kept)
        elif type(getattr(module, "padding_idx", None)) is int and not isinstance(
            module, nn.Embedding
        ):
            module.padding_idx = new.get(module.padding_idx, module.padding_idx)
        if vars(module).get("vocab_size") == size:
            module.vocab_size = len(kept)
    for config in configurations(smaller):
        _renumber(config, new, size)
    return smaller


def _vocabulary_tensors(model: Any, size: int) -> Iterator[tuple[Tensor, int]]:
    """Tensors with one row (or entry) for each token, and which dimension that is."""
    embedding, head = _embedding(model), model.get_output_embeddings()
    seen: set[int] = set()
    for path, module in model.named_modules():
        table = isinstance(module, nn.Embedding) and module.num_embeddings == size
        if module is embedding or module is head or (table and "position" not in path):
            for tensor in module._parameters.values():
                if tensor is not None and tensor.shape[0] == size and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield tensor, 0
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        alone = tensor.numel() == size and tensor.shape[-1] == size
        if alone and name.endswith("bias") and id(tensor) not in seen and _of_head(name):
            seen.add(id(tensor))
            yield tensor, tensor.ndim - 1


def _of_head(name: str) -> bool:
    return any(word in name for word in ("head", "predictions", "logits", "vocab", "generator"))


def _check_padding(model: Any, size: int, new: Mapping[int, int]) -> None:
    for path, module in model.named_modules():
        at = vars(module).get("padding_idx")
        positions = getattr(module, "position_embeddings", None)
        if type(at) is int and isinstance(positions, nn.Embedding) and new.get(at) != at:
            if positions.padding_idx is None:
                continue
            raise ConfigError(
                f"'{path}' counts positions from the padding token's number {at}, which would "
                f"become {new.get(at)}: keep more tokens than that (min_count=1, a larger corpus)"
            )


def _embedding(model: Any) -> nn.Embedding:
    try:
        found = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        found = None
    if not isinstance(found, nn.Embedding):
        raise ConfigError(
            f"{type(model).__name__} has no embedding of tokens whose vocabulary could be trimmed"
        )
    return found


def _renumber(config: Any, new: Mapping[int, int], size: int) -> None:
    for name, value in list(vars(config).items()):
        if name == "vocab_size" and value == size:
            setattr(config, name, len(new))
        elif value is not None and name.lstrip("_").endswith(_TOKENS):
            object.__setattr__(config, name, _renumbered(value, new, size))
        elif name in ("lang_to_id", "task_to_id") and isinstance(value, dict):
            setattr(config, name, {k: new[v] for k, v in value.items() if v in new})


def _renumbered(value: Any, new: Mapping[int, int], size: int) -> Any:
    """Ids renumbered; those of tokens that are gone leave their list, others were none."""
    if type(value) is int:
        return new.get(value, value)
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(item, (list, tuple)) for item in value):
            inner = [_renumbered(item, new, size) for item in value]
            return [i for i, old in zip(inner, value, strict=True) if len(i) == len(old)]
        return [new[item] for item in value if item in new]
    return value


def _integers(value: Any) -> Iterator[int]:
    if type(value) is int:
        yield value
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _integers(item)


def order(kept: Sequence[int], padding: int | None, without_token: set[int]) -> Tensor:
    """New numbers for tokens: in the old order, the padding token where it was if it can be.

    Args:
        kept: old ids.
        padding: the padding token, whose number some models count positions from.
        without_token: rows that the tokenizer does not know; they come last.

    Returns:
        Old ids in the order of the new ones, [tokens].
    """
    line = [at for at in sorted(set(kept)) if at != padding and at not in without_token]
    if padding is not None and padding not in without_token:
        line.insert(min(padding, len(line)), padding)
    rest = sorted(at for at in set(kept) if at in without_token)
    return torch.tensor(line + rest, dtype=torch.long)
