"""Convolutions of any rank: plain, transposed, grouped, depthwise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlprune.ops.families.contraction import product_zeros
from rlprune.ops.joining import collapse, lines_along
from rlprune.ops.labels import Planes, varying
from rlprune.ops.notes import Contraction, Factor
from rlprune.ops.record import Operands, Scaling
from rlprune.ops.table import register

if TYPE_CHECKING:
    from rlprune.ops.tracer import Tracer


def convolution(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """Convolutions of any rank, transposed and grouped ones included."""
    x, weight, bias = args[0], args[1], args[2]
    transposed, groups = bool(args[6]), int(args[8])
    where = tracer.where("convolution")
    labels = tracer.trace.labels
    own = tracer.planes(weight)
    dim_out, dim_in = (1, 0) if transposed else (0, 1)
    if not tracer.is_weight(weight):
        _record_conv(tracer, x, weight, out, transposed)
        reason = f"{where}: its kernel is computed in the forward pass"
        tracer.freeze((*own, *tracer.planes(x)), reason)
        tracer.note_whole(reason)
        tracer.set_planes(out, ())
        return
    w_in = _vector(tracer, own, dim_in, weight.shape[dim_in], where)
    w_out = _vector(tracer, own, dim_out, weight.shape[dim_out], where)
    tracer.freeze([p for p in own if max(varying(p)) > 1], f"{where}: kernel positions")
    spatial = [p for p in tracer.planes(x) if 1 not in varying(p)]
    tracer.freeze(spatial, f"{where}: its window slides along it")
    channels = x.shape[1]
    units = _vector(tracer, tracer.planes(x), 1, channels, where)
    _record_conv(tracer, x, weight, out, transposed)

    fixed = f"{where}: reads an input of fixed size"
    if groups == 1:
        labels.union(units, w_in, fixed)
        result = w_out
        for plane in own:
            if varying(plane) == (dim_in,):
                tracer.mark(plane, "in")
            elif varying(plane) == (dim_out,):
                tracer.mark(plane, "out", "channels")
    else:
        result = _grouped(tracer, own, units, w_in, w_out, groups, transposed, out.shape[1])
    plane = torch.from_numpy(result).reshape(1, -1, *[1] * (out.ndim - 2))
    if isinstance(bias, Tensor):
        bias_labels = _vector(tracer, tracer.planes(bias), 0, out.shape[1], where)
        labels.union(result, bias_labels, f"{where}: its bias has a fixed size")
    tracer.set_planes(out, (plane,))


def _grouped(
    tracer: Tracer,
    own: Planes,
    units: Any,
    w_in: Any,
    w_out: Any,
    groups: int,
    transposed: bool,
    out_channels: int,
) -> Any:
    """Join labels across the groups of a grouped convolution; returns the output's labels.

    Either whole groups are units (depthwise, or more groups than channels in each), or one unit is
    the same position in every group. The finer of the two is taken.
    """
    where = tracer.where("grouped convolution")
    labels = tracer.trace.labels
    per_in, per_out = len(units) // groups, out_channels // groups
    table = units.reshape(groups, per_in)
    whole = per_in < groups
    tracer.trace.grouped[tracer.current()] = "groups" if whole else "positions"
    if whole:
        rows = w_in if transposed else w_out
        per_row = per_in if transposed else per_out
        labels.union(table[:, :1], table, where)
        labels.union(table[:, :1], rows.reshape(groups, per_row), where)
        labels.freeze(w_out if transposed else w_in, f"{where}: channels inside a group")
        return rows.reshape(groups, per_row)[:, :1].repeat(per_out, 1).ravel()
    if transposed:
        labels.union(table, w_in.reshape(groups, per_in), where)
        labels.union(table[:1], table, where)
        outs = w_out.reshape(1, per_out).repeat(groups, 0)
    else:
        labels.union(table, w_in.reshape(1, per_in), where)
        outs = w_out.reshape(groups, per_out)
        labels.union(outs[:1], outs, where)
    for plane in own:
        vary = varying(plane)
        if vary == ((0,) if transposed else (1,)):
            tracer.mark(plane, "in")
        elif vary == ((1,) if transposed else (0,)):
            tracer.mark(plane, "out", "channels")
    return outs.ravel()


def _vector(tracer: Tracer, planes: Planes, dim: int, size: int, where: str) -> Any:
    """Labels along one dimension, [size]; zeros where the dimension is not labelled."""
    for plane in planes:
        if dim in varying(plane):
            line = collapse(tracer, plane, (dim,), where)
            return line.reshape(-1).contiguous().numpy()
    return torch.zeros(size, dtype=torch.int64).numpy()


def _record_conv(tracer: Tracer, x: Tensor, weight: Tensor, out: Tensor, transposed: bool) -> None:
    own = tracer.planes(weight)
    factors = [Factor(size, tuple(lines_along(own, d))) for d, size in enumerate(weight.shape)]
    positions = x if transposed else out
    factors.append(Factor(positions.shape[0] * positions[0, 0].numel()))
    tracer.record(Contraction(tracer.current(), "convolution", tuple(factors)))


def _macs(args: tuple[Any, ...], result: Any) -> int:
    inputs, weight, transposed = args[0], args[1], args[6]
    positions = (inputs if transposed else result).shape[2:]
    return int(inputs.shape[0]) * math.prod(positions) * int(weight.numel())


register(
    "convolution _convolution convolution_overrideable",
    convolution,
    macs=_macs,
    zeros=product_zeros,
    scaling=Scaling.LAYER,
    operands=Operands(groups=8),
)
