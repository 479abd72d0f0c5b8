"""Ops that compute a weight from parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlprune.ops.joining import argument, merge, tensors_in
from rlprune.ops.labels import varying
from rlprune.ops.table import register

if TYPE_CHECKING:
    from rlprune.ops.tracer import Tracer


def weight_norm(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """A row of a weight is divided by its own norm, which changes when a part of it is removed."""
    reason = (
        f"{tracer.where('weight norm')}: removing inputs would change the norm of its weight; bake "
        "it in first (torch.nn.utils.parametrize.remove_parametrizations, or remove_weight_norm)"
    )
    direction, gain = args[:2]
    dim = argument(func, args, kwargs, "dim")
    rows = [p for p in tracer.planes(direction) if varying(p) == (dim,)]
    inside = [p for p in tracer.planes(direction) if varying(p) != (dim,)]
    tracer.freeze(inside, reason)
    operands = [(direction, tuple(rows)), (gain, tracer.planes(gain))]
    planes = merge(tracer, operands, direction.ndim, "weight norm")
    results = tensors_in(out)
    tracer.set_planes(results[0], (*planes, *inside), weight=True)
    for extra in results[1:]:
        tracer.set_planes(extra, ())


register("_weight_norm_interface _weight_norm", weight_norm)
