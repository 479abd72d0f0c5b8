"""Other inputs that a network may take: another size, other values, another batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from rlprune.inputs import batch_of, batch_size, map_tensors

GROWTH = 32
"""Pixels by which a picture grows in height, and twice that in width: the stride of most nets."""


def resized(example_inputs: Any) -> Iterator[Any]:
    """The inputs at other sizes, to be tried in turn, the likeliest first.

    Pictures become taller and much wider, sequences about half as long; the last try keeps the
    size. All have one sample more.
    """
    more = batch_of(example_inputs, batch_size(example_inputs) + 1)
    tensors = [x for x in tree_leaves(more) if isinstance(x, Tensor)]
    picture = next((t for t in tensors if t.ndim in (4, 5) and t.is_floating_point()), None)
    if picture is not None:
        height, width = picture.shape[-2:]
        for rows, columns in ((GROWTH, 2 * GROWTH), (height, 2 * width), (height, width)):
            yield map_tensors(more, _grown((height, width), (height + rows, width + columns)))
    else:
        lengths = [t.shape[1] for t in tensors if t.ndim in (2, 3) and t.shape[1] > 2]
        tokens = [t.shape[1] for t in tensors if t.ndim == 2 and not t.is_floating_point()]
        if tokens or any(t.ndim == 3 for t in tensors):
            length = (tokens or lengths or [0])[0]
            if length > 2:
                yield map_tensors(more, _shortened(length, length // 2 + 1))
    yield more


def _grown(old: tuple[int, int], new: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """Repeat the last two dimensions of pictures of one size up to another."""

    def grow(tensor: Tensor) -> Tensor:
        if tensor.ndim < 3 or tuple(tensor.shape[-2:]) != old:
            return tensor
        for dim, before, after in zip((-2, -1), old, new, strict=True):
            index = torch.arange(after, device=tensor.device) % before
            tensor = tensor.index_select(dim, index)
        return tensor

    return grow


def _shortened(length: int, new: int) -> Callable[[Tensor], Tensor]:
    """Cut every dimension but the first that has some length."""

    def shorten(tensor: Tensor) -> Tensor:
        for dim in range(1, tensor.ndim):
            if tensor.shape[dim] == length:
                tensor = tensor.narrow(dim, 0, new)
        return tensor.contiguous()

    return shorten


def revalued(example_inputs: Any) -> Iterator[Any]:
    """The inputs with other values of the same kind, so that other branches may be taken."""

    def negative(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            return -tensor
        return ~tensor if tensor.dtype is torch.bool else tensor.flip(-1) if tensor.ndim else tensor

    def large(tensor: Tensor) -> Tensor:
        return tensor * 100 if tensor.is_floating_point() else tensor

    def nothing(tensor: Tensor) -> Tensor:
        return torch.zeros_like(tensor)

    for change in (negative, large, nothing):
        yield map_tensors(example_inputs, change)
