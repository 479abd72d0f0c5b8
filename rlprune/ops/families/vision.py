"""Operations of torchvision: deformable convolution, pooling of regions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rlprune.ops.families.convolution import convolution
from rlprune.ops.joining import tensors_in
from rlprune.ops.labels import varying
from rlprune.ops.record import Operands, Scaling
from rlprune.ops.table import name_of, register, unknown
from rlprune.ops.uniform import meet

if TYPE_CHECKING:
    from rlprune.ops.tracer import Tracer

_GROUPS, _OFFSET_GROUPS = 11, 12


def deform_conv2d(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    """A convolution for the channels; offsets and masks have one channel per kernel position."""
    x, weight, offset, mask, bias = args[:5]
    where = tracer.where("deformable convolution")
    for tensor in (offset, mask):
        tracer.freeze(tracer.planes(tensor), f"{where}: one channel per kernel position")
    if args[_OFFSET_GROUPS] > 1:
        tracer.freeze(tracer.planes(x), f"{where}: its channels share offsets by block")
    made = None if tracer.planes(bias) else tracer.uniform.sizes(bias, 1).get(0)
    like = (x, weight, bias if made is None else None, 1, 0, 1, False, 0, args[_GROUPS])
    convolution(tracer, func, like, {}, out)
    for plane in tracer.planes(out):
        if made is not None:
            meet(tracer.trace.labels, made, plane, f"{where}: its bias has a fixed size")


def _macs(args: tuple[Any, ...], result: Any) -> int:
    positions = math.prod(result.shape[2:]) * int(result.shape[0])
    return positions * int(args[1].numel())


def regions(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """Regions cut out of feature maps and pooled: channels pass, regions are data."""
    x, boxes = args[:2]
    where = tracer.where(name_of(func))
    tracer.freeze(tracer.planes(boxes), f"{where}: they say where regions lie")
    planes = []
    for plane in tracer.planes(x):
        if varying(plane) == (1,):
            planes.append(plane)
        else:
            tracer.freeze((plane,), f"{where}: its window slides along it")
    for k, result in enumerate(tensors_in(out)):
        tracer.set_planes(result, planes if k == 0 else ())


register(
    "torchvision::deform_conv2d",
    deform_conv2d,
    macs=_macs,
    scaling=Scaling.LAYER,
    operands=Operands(bias=4, groups=_GROUPS),
)
register("torchvision::roi_align torchvision::roi_pool", regions, scaling=Scaling.EACH)
register("torchvision::nms", unknown, looks=True)
