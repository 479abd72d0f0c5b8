"""What a network's class and configuration build: shapes, integers and modules by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rlprune.errors import ConfigError
from rlprune.structure.stand_ins import Skip, Zeros

Signature = dict[tuple[str, str], Any]
"""(kind of entry, name) -> shape, value or class name."""


def dense_class(model: nn.Module) -> type[Any]:
    """The class of transformers that a network belongs to, also where it was pruned before.

    Raises:
        ConfigError: it is no network of transformers.
    """
    from transformers import PreTrainedModel

    from rlprune.integrations.hf.modeling_pruned import Pruned

    if not isinstance(model, PreTrainedModel):
        raise ConfigError(
            f"{type(model).__name__} is no model of transformers; rlprune.hf works on those "
            "(from_pretrained), everything else is saved by rlprune.prune(out_dir=...)"
        )
    kinds = type(model).__mro__
    if isinstance(model, Pruned) or any(kind.__name__ == "Pruned" for kind in kinds):
        after = next(i for i, kind in enumerate(kinds) if kind.__name__ == "Pruned")
        return kinds[after + 1]
    return type(model)


def stock(kind: type[Any], config: Any) -> nn.Module:
    """What a class builds from a configuration, without memory for its tensors where it can."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return kind(config)
        except RuntimeError:  # its constructor reads values of tensors
            return kind(config)


def signature(model: nn.Module) -> Signature:
    """Everything that two builds of an architecture may differ in.

    Returns:
        Shapes of parameters and persistent buffers ("tensor"), integers, numbers, words and
        tuples of integers of modules ("attribute"), lengths of module lists ("length") and
        classes ("class").
    """
    found: Signature = {("tensor", n): tuple(t.shape) for n, t in _tensors(model).items()}
    for path, module in model.named_modules(remove_duplicate=False):
        if path:
            found["class", path] = type(module).__name__
        if isinstance(module, nn.ModuleList):
            found["length", path] = len(module)
        for name, value in vars(module).items():
            if name.startswith("_") or name in ("training", "name_or_path"):
                continue
            if isinstance(value, (bool, int, float, str)) or _integers(value):
                found["attribute", f"{path}.{name}"] = value
    return found


def differences(want: Signature, have: Signature) -> dict[tuple[str, str], tuple[Any, Any]]:
    """Entries of two signatures that are not the same: (wanted, there); None where absent."""
    keys = dict.fromkeys([*want, *have])
    return {k: (want.get(k), have.get(k)) for k in keys if want.get(k) != have.get(k)}


@dataclass(frozen=True)
class Residue:
    """What a configuration cannot say about a network; see `modeling_pruned`.

    Attributes:
        tensors: shapes by state-dict name.
        attributes: integers by module and name.
        stand_ins: modules that do not run -> what they return (see `modeling_pruned.cut`).
    """

    tensors: dict[str, list[int]]
    attributes: dict[str, dict[str, Any]]
    stand_ins: dict[str, int | None]

    def __bool__(self) -> bool:
        return bool(self.tensors or self.attributes or self.stand_ins)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in ``config.json``."""
        return {
            "tensors": self.tensors,
            "attributes": self.attributes,
            "stand_ins": self.stand_ins,
        }


def residue(model: nn.Module, differing: Mapping[tuple[str, str], tuple[Any, Any]]) -> Residue:
    """What is left to be said about a network beside its configuration.

    Raises:
        ConfigError: modules were added, removed or replaced by other classes; names one.
    """
    tensors: dict[str, list[int]] = {}
    attributes: dict[str, dict[str, Any]] = {}
    stand_ins: dict[str, int | None] = {}
    modules = dict(model.named_modules(remove_duplicate=False))
    for kind, name in differing:
        if kind == "class" and is_stand_in(modules.get(name)):
            stand_ins[name] = getattr(modules[name], "nones", None)
    inside = tuple(f"{path}." for path in stand_ins)
    for (kind, name), (wanted, there) in differing.items():
        if name in stand_ins or name.startswith(inside):
            continue
        if wanted is None or there is None or kind in ("class", "length"):
            raise ConfigError(
                f"{type(model).__name__} has {wanted!r} at '{name}' where its configuration builds "
                f"{there!r}: such a change of modules cannot be saved"
            )
        if kind == "tensor":
            tensors[name] = list(wanted)
        else:
            path, _, attribute = name.rpartition(".")
            value = list(wanted) if isinstance(wanted, tuple) else wanted
            attributes.setdefault(path, {})[attribute] = value
    return Residue(tensors, attributes, stand_ins)


def is_stand_in(module: nn.Module | None) -> bool:
    """Whether a module stands where a dropped branch ran."""
    # those of the shipped file have the same names
    return type(module).__name__ in (Zeros.__name__, Skip.__name__)


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    persistent = {n for n in model.state_dict()}
    tensors: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors |= {n: b for n, b in model.named_buffers(remove_duplicate=False) if n in persistent}
    return tensors


def _integers(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, int) for item in value)
