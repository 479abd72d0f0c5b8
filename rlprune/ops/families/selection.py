"""Positions picked by number, dealt out in blocks, looked up in tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlprune.ops.joining import merge, tensors_in
from rlprune.ops.labels import varying
from rlprune.ops.record import Moves, Operands, Scaling, Zeros
from rlprune.ops.table import name_of, register

if TYPE_CHECKING:
    from rlprune.ops.tracer import Tracer


def moved_in_full(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """The general case: expand the labels to the tensor's full shape and run the op on them."""
    source: Tensor = args[0]
    name = name_of(func)
    planes = []
    for plane in tracer.planes(source):
        full = plane.expand(source.shape)
        moved = func(full, *args[1:], **kwargs)
        if name in PICKING and _cut(plane, source, name, args):
            tracer.freeze((plane,), f"{tracer.where(name)}: positions are picked by number")
        planes.append(moved)
    others = [t for t in tensors_in(args[1:], kwargs) if tracer.planes(t)]
    for other in others:
        tracer.freeze(tracer.planes(other), f"{tracer.where(name)}: used as an index")
    tracer.set_planes(out, planes, weight=tracer.is_weight(source))
    if name in ("pixel_shuffle", "pixel_unshuffle", "channel_shuffle") and planes:
        _tie_blocks(tracer, name, source, args)


PICKING = {"index_select", "gather", "as_strided", "unfold", "narrow", "roll", "diagonal"}
"""Ops that move positions by number: what they do along a dimension depends on its size."""


def _cut(plane: Tensor, source: Tensor, name: str, args: tuple[Any, ...]) -> bool:
    """Whether such an op touches a dimension along which labels change."""
    if name in ("index_select", "unfold", "narrow", "gather"):
        return plane.shape[args[1] % source.ndim] > 1
    if name == "roll" and len(args) > 2 and args[2]:
        return any(plane.shape[d % source.ndim] > 1 for d in args[2])
    return True


def _tie_blocks(tracer: Tracer, name: str, source: Tensor, args: tuple[Any, ...]) -> None:
    """Channels that an op deals out in blocks of fixed size are removed block by block."""
    factor = args[1] if name == "channel_shuffle" else args[1] ** 2
    if name == "pixel_unshuffle":
        return
    for plane in tracer.planes(source):
        if plane.shape[1] <= 1:
            continue
        blocks = plane.expand(1, *plane.shape[1:])
        channels = blocks.shape[1]
        shape = (factor, channels // factor) if name == "channel_shuffle" else (-1, factor)
        table = blocks.movedim(1, 0).reshape(channels, -1)[:, 0].reshape(shape)
        if name == "channel_shuffle":
            table = table.t()
        tracer.trace.labels.union(
            table[:, :1].contiguous().numpy(),
            table.contiguous().numpy(),
            tracer.where(name),
        )


def im2col(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Sliding patches: every channel becomes as many as the window has positions."""
    source: Tensor = args[0]
    channel = source.ndim - 3
    window = out.shape[channel] // source.shape[channel]
    planes = []
    for plane in tracer.planes(source):
        if varying(plane) != (channel,):
            tracer.freeze((plane,), f"{tracer.where('unfold')}: its window slides along it")
        else:
            planes.append(plane.repeat_interleave(window, channel).flatten(channel + 1))
    tracer.set_planes(out, planes)


def index(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Advanced indexing: fine along unlabelled dimensions, frozen along labelled ones."""
    source: Tensor = args[0]
    indices = args[1]
    planes = []
    for plane in tracer.planes(source):
        touched = [d for d, ix in enumerate(indices) if ix is not None and plane.shape[d] > 1]
        if touched:
            tracer.freeze((plane,), f"{tracer.where('index')}: positions are picked by number")
        if math.prod(source.shape) == 0:
            continue
        planes.append(func(plane.expand(source.shape), *args[1:], **kwargs))
    tracer.set_planes(out, planes, weight=tracer.is_weight(source))


def embedding(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """A table look-up creates the units of the embedding width; its rows are the vocabulary."""
    table: Tensor = args[0]
    planes = []
    for plane in tracer.planes(table):
        if plane.shape[0] > 1:
            tracer.freeze((plane,), f"{tracer.where('embedding')}: rows are looked up by number")
        else:
            tracer.mark(plane, "out", "embedding")
            planes.append(plane.reshape((1,) * (out.ndim - 1) + (-1,)))
    tracer.set_planes(out, planes)


def embedding_bag(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """Look-ups that are summed, averaged or maximised within bags."""
    embedding(tracer, func, args, kwargs, out[0])
    for extra in out[1:]:
        tracer.set_planes(extra, ())


def index_add(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Rows of one tensor added into rows of another: the other dimensions meet."""
    target, source = args[0], args[3]
    dim = args[1] % max(target.ndim, 1)
    name = name_of(func)
    for tensor in (target, source):
        along = [p for p in tracer.planes(tensor) if p.shape[dim] > 1]
        tracer.freeze(along, f"{tracer.where(name)}: positions are picked by number")
    rows = torch.empty([1 if d == dim else n for d, n in enumerate(source.shape)], device="meta")
    kept = tuple(p for p in tracer.planes(source) if p.shape[dim] == 1)
    operands = [(target, tracer.planes(target)), (rows, kept)]
    tracer.set_planes(out, merge(tracer, operands, target.ndim, name))


def pad(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Padding along a labelled dimension adds positions of fixed number (label 0)."""
    source: Tensor = args[0]
    planes = []
    for plane in tracer.planes(source):
        widths = list(args[1])
        for k in range(len(widths) // 2):
            if plane.shape[source.ndim - 1 - k] == 1:
                widths[2 * k] = widths[2 * k + 1] = 0
        planes.append(torch.nn.functional.pad(plane, widths))
    tracer.set_planes(out, planes)


def _padded_with_zeros(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    return (args[2] if len(args) > 2 else kwargs.get("value", 0)) == 0


def _pad_zeros(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Zeros:
    return Zeros.FIRST if _padded_with_zeros(args, kwargs) else Zeros.NEVER


def _pad_degree(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float | None:
    return 1.0 if _padded_with_zeros(args, kwargs) else None


def _by_mask(args: tuple[Any, ...]) -> bool:
    return any(x.dtype is torch.bool for x in tensors_in(args[1:]))


_FIRST, _EACH = Zeros.FIRST, Scaling.EACH

register(
    "roll pixel_shuffle pixel_unshuffle channel_shuffle",
    moved_in_full,
    moves=Moves.REARRANGES,
    zeros=_FIRST,
)
register("repeat repeat_interleave index_select gather", moved_in_full, zeros=_FIRST, scaling=_EACH)
register("narrow unfold diagonal", moved_in_full, zeros=_FIRST, scaling=_EACH, view=True)
register("as_strided", moved_in_full, view=True, layout=True)
register("im2col", im2col, zeros=_FIRST, scaling=_EACH)
register("index", index, zeros=_FIRST, scaling=_EACH, looks=_by_mask)
register("embedding", embedding, scaling=Scaling.LAYER, operands=Operands(1, 0, None))
register("_embedding_bag _embedding_bag_forward_only", embedding_bag)
register("index_add index_copy", index_add)
register("constant_pad_nd", pad, zeros=_pad_zeros, scaling=_EACH, degree=_pad_degree)
register("pad", pad)
