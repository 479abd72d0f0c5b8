"""Other inputs that a network may take: another size, other values, another batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from rlprune.inputs import batch_of, batch_size, map_tensors

GROWTH = 32
"""Pixels by which a picture grows in height, and twice that in width: the stride of most nets."""
SMALL = 96
"""Pixels that a picture is cut to where a large one would take long."""


Change = Callable[[Tensor], Tensor]


def resized(example_inputs: Any) -> Iterator[Any]:
    """The inputs at other sizes, to be tried in turn, the likeliest first.

    Pictures become taller and much wider, films shorter too, sequences about half as long, signals
    with channels as well. All have one sample more where that can be; the last of these tries keeps
    the size. In the end come other sizes of the same samples, for inputs without a batch.
    """
    more = batch_of(example_inputs, batch_size(example_inputs) + 1)
    tensors = _tensors(more)
    changes = _of_pictures(tensors) or _of_sequences(tensors)
    for change in changes:
        yield map_tensors(more, change)
    yield more
    if not any(t.ndim > 3 for t in tensors):
        for change in changes:
            yield map_tensors(example_inputs, change)


def unlike(example_inputs: Any) -> Iterator[Any]:
    """The inputs as a single sample, and as longer texts."""
    if batch_size(example_inputs) > 1:
        yield batch_of(example_inputs, 1)
    tensors = _tensors(example_inputs)
    tokens = [t.shape[1] for t in tensors if t.ndim == 2 and not t.is_floating_point()]
    if tokens:
        length = tokens[0]

        def repeat(tensor: Tensor) -> Tensor:
            for dim in range(1, tensor.ndim):
                if tensor.shape[dim] == length:
                    tensor = torch.cat([tensor, tensor], dim)
            return tensor

        yield map_tensors(example_inputs, repeat)


def enlarged(example_inputs: Any) -> Iterator[Any]:
    """The inputs with pictures two, four and eight times as high and wide."""
    picture = _picture(_tensors(example_inputs))
    if picture is None:
        return
    height, width = picture.shape[-2:]
    for times in (2, 4, 8):
        yield map_tensors(example_inputs, _grown((height, width), (times * height, times * width)))


def smaller_pictures(example_inputs: Any) -> Iterator[Any]:
    """The inputs with pictures cut to `SMALL` pixels, if they are larger."""
    picture = _picture(_tensors(example_inputs))
    if picture is None:
        return
    old = tuple(picture.shape[-2:])
    if max(old) > SMALL:
        new = [min(n, SMALL) for n in old]

        def cut(tensor: Tensor) -> Tensor:
            if tensor.ndim < 3 or tuple(tensor.shape[-2:]) != old:
                return tensor
            return tensor[..., : new[0], : new[1]].contiguous()

        yield map_tensors(example_inputs, cut)


def _tensors(example_inputs: Any) -> list[Tensor]:
    return [x for x in tree_leaves(example_inputs) if isinstance(x, Tensor)]


def _picture(tensors: Sequence[Tensor], dims: Sequence[int] = (4,)) -> Tensor | None:
    """The first tensor that holds pictures, or with five dimensions films."""
    return next((t for t in tensors if t.ndim in dims and t.is_floating_point()), None)


def _of_pictures(tensors: Sequence[Tensor]) -> list[Change]:
    picture = _picture(tensors, (4, 5))
    if picture is None:
        return []
    height, width = picture.shape[-2:]
    grown = [
        _grown((height, width), (height + rows, width + columns))
        for rows, columns in ((GROWTH, 2 * GROWTH), (height, 2 * width), (height, width))
    ]
    if picture.ndim == 4:
        return grown
    frames = 2 if picture.shape[1] <= 4 else 1
    if picture.shape[frames] < 3:
        return grown
    shorter = _cut(frames, picture.shape[frames] // 2 + 1)
    return [_both(shorter, grown[0]), _both(shorter, grown[2]), *grown, shorter]


def _of_sequences(tensors: Sequence[Tensor]) -> list[Change]:
    tokens = [t.shape[1] for t in tensors if t.ndim == 2 and not t.is_floating_point()]
    signals = [t.shape for t in tensors if t.ndim == 3]
    if not tokens and not signals:
        return []
    lengths = tokens[:1] or [signals[0][1], signals[0][2]]
    return [_shortened(n, n // 2 + 1) for n in dict.fromkeys(lengths) if n > 2]


def _both(first: Change, second: Change) -> Change:
    return lambda tensor: second(first(tensor))


def _cut(dim: int, length: int) -> Change:
    """Cut one dimension of films, tensors of five dimensions."""

    def cut(tensor: Tensor) -> Tensor:
        return tensor.narrow(dim, 0, length).contiguous() if tensor.ndim == 5 else tensor

    return cut


def _grown(old: tuple[int, int], new: tuple[int, int]) -> Change:
    """Repeat the last two dimensions of pictures of one size up to another."""

    def grow(tensor: Tensor) -> Tensor:
        if tensor.ndim < 3 or tuple(tensor.shape[-2:]) != old:
            return tensor
        for dim, before, after in zip((-2, -1), old, new, strict=True):
            index = torch.arange(after, device=tensor.device) % before
            tensor = tensor.index_select(dim, index)
        return tensor

    return grow


def _shortened(length: int, new: int) -> Change:
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
