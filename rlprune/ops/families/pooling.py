"""Pooling, resizing and padding of the last dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from rlprune.ops.joining import tensors_in
from rlprune.ops.labels import varying
from rlprune.ops.record import Scaling, Zeros
from rlprune.ops.table import name_of, register

if TYPE_CHECKING:
    from rlprune.ops.tracer import Tracer


def spatial(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """Pooling, resizing and padding of the last dimensions leave channels alone."""
    x: Tensor = args[0]
    name = name_of(func)
    rank = 1 if "1d" in name else 3 if "3d" in name else 2
    first = x.ndim - rank
    planes = []
    for plane in tracer.planes(x):
        if max(varying(plane)) >= first:
            tracer.freeze((plane,), f"{tracer.where(name)}: its window slides along it")
        else:
            planes.append(plane)
    for result in tensors_in(out):
        tracer.set_planes(result, planes)


register(
    "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices "
    "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
    "fractional_max_pool2d fractional_max_pool3d "
    "avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d "
    "_upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d "
    "upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa "
    "reflection_pad1d reflection_pad2d reflection_pad3d "
    "replication_pad1d replication_pad2d replication_pad3d",
    spatial,
    zeros=Zeros.FIRST,
    scaling=Scaling.EACH,
)
register("grid_sampler_2d grid_sampler_3d max_unpool2d max_unpool3d", spatial, zeros=Zeros.FIRST)
