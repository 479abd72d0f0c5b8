"""Copies of a network that a trace may do anything to."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rlprune.errors import StructureError


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
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise StructureError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error}); "
            "keep what cannot be copied (locks, open files, generators) out of its attributes"
        ) from error


def _attributes(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, (Tensor, list, tuple)):
                yield from (x for x in tree_leaves(value) if isinstance(x, Tensor))
