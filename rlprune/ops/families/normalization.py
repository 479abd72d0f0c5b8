"""Normalisation: per-channel statistics pass labels, statistics over units freeze them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlprune.ops.joining import collapse, merge, tensors_in
from rlprune.ops.labels import Planes, varying
from rlprune.ops.record import Operands, Scaling, Zeros
from rlprune.ops.table import name_of, register

if TYPE_CHECKING:
    from rlprune.ops.tracer import Tracer


def _affine(
    tracer: Tracer, op: str, x: Tensor, planes: Planes, params: list[Any], out: Tensor
) -> None:
    operands = [(x, planes)]
    for p in params:
        if isinstance(p, Tensor):
            shape = (1, -1, *[1] * (x.ndim - 2))
            planes = tuple(q.reshape(shape) for q in tracer.planes(p))
            operands.append((torch.empty(p.reshape(shape).shape, device="meta"), planes))
    tracer.set_planes(out, merge(tracer, operands, x.ndim, op))


def batch_norm(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """Batch norm ties its affine parameters and running statistics to the channels."""
    x = args[0]
    where = f"{tracer.where('batch norm')}: statistics are taken over it"
    planes = []
    for plane in tracer.planes(x):
        if max(varying(plane)) <= 1:
            planes.append(plane)
        elif 1 in varying(plane):
            planes.append(collapse(tracer, plane, (0, 1), where))
        else:
            tracer.freeze((plane,), where)
    params = [a for a in args[1:5] if isinstance(a, Tensor)]
    _affine(tracer, "batch norm", x, tuple(planes), params, out[0])
    for extra in tensors_in(out[1:]):
        tracer.set_planes(extra, ())


def layer_norm(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """Layer norm mixes all units it normalises over, so they cannot be removed exactly."""
    x, shape = args[0], args[1]
    first = x.ndim - len(shape)
    reason = f"{tracer.where(name_of(func))}: its statistics mix all units"
    for p in args[2:]:
        if isinstance(p, Tensor):
            tracer.freeze(tracer.planes(p), reason)
    kept = []
    for plane in tracer.planes(x):
        rest = tuple(d for d in varying(plane) if d < first)
        if rest:
            kept.append(collapse(tracer, plane, rest, reason))
        else:
            tracer.freeze((plane,), reason)
    results = tensors_in(out)
    tracer.set_planes(results[0], kept)
    for extra in results[1:]:
        tracer.set_planes(extra, ())


def group_norm(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """Group norm: a whole normalisation group is one unit."""
    x, groups = args[0], int(args[6])
    where = tracer.where("group norm")
    channels = x.shape[1]
    for plane in tracer.planes(x):
        if 1 not in varying(plane):
            tracer.freeze((plane,), f"{where}: statistics are taken over it")
            continue
        line = plane.expand(plane.shape).movedim(1, 0).reshape(channels, -1)
        if groups == 1:
            tracer.freeze((line,), f"{where}: its statistics mix all units")
            continue
        table = line.reshape(groups, -1).contiguous().numpy()
        tracer.trace.labels.union(table[:, :1], table, where)
        tracer.trace.grouped[tracer.current()] = "groups"
    results = tensors_in(out)
    params = [a for a in args[1:3] if a is not None]
    _affine(tracer, "group norm", x, tracer.planes(x), params, results[0])
    for extra in results[1:]:
        tracer.set_planes(extra, ())


register(
    "native_batch_norm _native_batch_norm_legit_no_training _native_batch_norm_legit "
    "cudnn_batch_norm miopen_batch_norm _batch_norm_no_update _batch_norm_with_update",
    batch_norm,
    scaling=Scaling.NORM,
    operands=Operands(statistics=(3, 4)),
)
register("native_group_norm", group_norm, operands=Operands())
register("native_layer_norm layer_norm", layer_norm, operands=Operands(weight=2, bias=3))
register(
    "_fused_rms_norm rms_norm",
    layer_norm,
    operands=Operands(weight=2, bias=None),
    zeros=Zeros.FIRST,
)
