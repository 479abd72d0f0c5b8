"""Values written at positions picked by number, and sliding patches put back together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlprune.ops.joining import merge
from rlprune.ops.labels import Planes, expand_ndim, varying
from rlprune.ops.record import Scaling, Zeros
from rlprune.ops.table import name_of, register
from rlprune.ops.uniform import in_full

if TYPE_CHECKING:
    from rlprune.ops.tracer import Tracer


def index_put(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Values written where indices or masks say: along the other dimensions both meet."""
    target, indices, values = args[:3]
    indexed: list[int] = []
    place = made = 0
    for index in indices:
        mask = index is not None and index.dtype is torch.bool
        span = index.ndim if mask else 1
        if index is not None:
            indexed += range(place, place + span)
            made = max(made, 1 if mask else index.ndim)
            tracer.freeze(tracer.planes(index), _picked(tracer, func))
        place += span
    rest = [d for d in range(target.ndim) if d not in indexed]
    gapless = indexed == list(range(indexed[0], indexed[-1] + 1))
    first = indexed[0] if gapless else 0
    dims: list[int | None] = [*rest[:first], *[None] * made, *rest[first:]]
    written = []
    for raw in tracer.planes(values):
        plane = expand_ndim(raw, len(dims))
        if any(dims[d] is None for d in varying(plane)):
            tracer.freeze((plane,), _picked(tracer, func))
            continue
        shape = [1] * target.ndim
        for size, d in zip(plane.shape, dims, strict=True):
            if d is not None:
                shape[d] = size
        written.append(plane.reshape(shape))
    sizes = [1] * target.ndim
    for size, d in zip((1,) * (len(dims) - values.ndim) + values.shape, dims, strict=True):
        if d is not None:
            sizes[d] = size
    body = torch.empty(sizes, device="meta")
    _write(tracer, func, out, (target, indexed), [(body, tuple(written))])


def scatter(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Values written along one dimension: along the others target, index and values meet."""
    target, dim, index = args[:3]
    dim %= target.ndim
    tracer.freeze(tracer.planes(index), _picked(tracer, func))
    sources = [x for x in args[3:4] if isinstance(x, Tensor)]
    operands: list[tuple[Tensor, Planes]] = [(index, ())]
    for source in sources:
        along = [p for p in tracer.planes(source) if p.shape[dim] > 1]
        tracer.freeze(along, _picked(tracer, func))
        kept = tuple(p for p in tracer.planes(source) if p.shape[dim] == 1)
        operands.append((source, kept))
    _write(tracer, func, out, (target, [dim]), operands)


def _write(
    tracer: Tracer,
    func: Any,
    out: Tensor,
    target: tuple[Tensor, Sequence[int]],
    operands: Sequence[tuple[Tensor, Planes]],
) -> None:
    """Join a target, written along some of its dimensions, with what is written.

    Where the target is only a part of its memory and carries no units, what is written must have a
    fixed size: other parts of that memory would not know of it.
    """
    tensor, along = target
    planes = tracer.planes(tensor)
    if not planes and not in_full(tensor):
        where = f"{tracer.where(name_of(func))}: written into a tensor whose size is fixed"
        for _, own in operands:
            tracer.freeze(own, where)
        return
    cut = [p for p in planes if set(varying(p)) & set(along)]
    tracer.freeze(cut, _picked(tracer, func))
    kept = tuple(p for p in planes if not set(varying(p)) & set(along))
    joined = merge(tracer, [(tensor, kept), *operands], tensor.ndim, name_of(func))
    tracer.set_planes(out, joined)


def _picked(tracer: Tracer, func: Any) -> str:
    return f"{tracer.where(name_of(func))}: positions are picked by number"


def col2im(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Sliding patches put back together: a channel is made of as many as the window has places."""
    source: Tensor = args[0]
    channel, where = source.ndim - 2, tracer.where("fold")
    channels = out.shape[out.ndim - 3]
    planes = []
    for plane in tracer.planes(source):
        if varying(plane) != (channel,):
            tracer.freeze((plane,), f"{where}: its window slides along it")
            continue
        table = plane.reshape(channels, -1)
        first = table[:, :1].contiguous()
        tracer.trace.labels.union(first.numpy(), table.contiguous().numpy(), where)
        shape = [1] * out.ndim
        shape[out.ndim - 3] = channels
        planes.append(first.reshape(shape))
    tracer.set_planes(out, planes)


register("index_put _index_put_impl", index_put)
register("scatter scatter_add scatter_reduce", scatter)
register("col2im", col2im, zeros=Zeros.FIRST, scaling=Scaling.EACH)
