"""Copies of a network that a trace may do anything to."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.errors import StructureError
from rlprune.ops.nested import leaves


def twin(model: nn.Module) -> nn.Module:
    """Copy everything of a network but its parameters, which both share.

    Running the copy changes neither the buffers, flags nor Python attributes of the original.

    Raises:
        StructureError: the network cannot be copied.
    """
    memo: dict[int, Any] = {id(p): p for p in model.parameters()}
    return copied(model, memo)


def copied(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Copy a network; ``memo`` maps ids of tensors to what takes their place in the copy.

    Tensors computed from parameters and kept as attributes (as ``torch.nn.utils.weight_norm``
    does) come out detached.

    Raises:
        StructureError: the network holds something that cannot be copied; names its class.
    """
    for tensor in _attributes(model):
        if not tensor.is_leaf:
            memo.setdefault(id(tensor), tensor.detach().clone())
    try:
        return _module(model, memo)
    except Exception as error:
        raise StructureError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error}); "
            "keep what cannot be copied (locks, open files, generators) out of its attributes"
        ) from error


_ATOMS = (int, float, bool, str, type(None), torch.dtype, torch.Size, FunctionType)
_OWN = ("_parameters", "_buffers", "_modules")
"""Dictionaries of a module that no other one shares, of what is copied by `_value`."""


def _module(module: nn.Module, memo: dict[int, Any]) -> Any:
    """What ``copy.deepcopy`` gives, in a fraction of its time."""
    kind = type(module)
    known = memo.get(id(module))
    if known is not None:
        return known
    if (
        hasattr(kind, "__deepcopy__")
        or kind.__reduce_ex__ is not object.__reduce_ex__
        or kind.__reduce__ is not object.__reduce__
        or kind.__getstate__ is not nn.Module.__getstate__
    ):
        return copy.deepcopy(module, memo)
    made = kind.__new__(kind)
    memo[id(module)] = made
    made.__setstate__(
        {
            name: {k: _value(v, memo) for k, v in value.items()}
            if name in _OWN and type(value) is dict
            else _value(value, memo)
            for name, value in vars(module).items()
        }
    )
    return made


def _value(value: Any, memo: dict[int, Any]) -> Any:
    if type(value) in _ATOMS:
        return value
    if isinstance(value, nn.Module):
        return _module(value, memo)
    known = memo.get(id(value))
    if known is not None:
        return known
    if type(value) in (dict, OrderedDict, set, list) and not value:
        memo[id(value)] = value.copy()
        return memo[id(value)]
    return copy.deepcopy(value, memo)


def _attributes(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor):
                yield value
            elif value and isinstance(value, (list, tuple)):
                yield from (x for x in leaves(value) if isinstance(x, Tensor))
