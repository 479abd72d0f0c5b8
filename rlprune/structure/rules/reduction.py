"""Reductions, softmax, pooling: fine along unlabelled dimensions, joined or frozen along others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from rlprune.structure.labels import varying
from rlprune.structure.rules._registry import register, tensors_in
from rlprune.structure.rules.contraction import collapse

if TYPE_CHECKING:
    from rlprune.structure.trace import Tracer


def argument(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Any:
    """Value of a named argument of an ATen call, its default where it was left out."""
    for k, spec in enumerate(func._schema.arguments):
        if spec.name == name:
            if name in kwargs:
                return kwargs[name]
            return args[k] if k < len(args) else spec.default_value
    return None


def _reduced(
    tracer: Tracer, plane: Tensor, dims: tuple[int, ...], op: str, results: list[Tensor]
) -> Tensor | None:
    """Join what is reduced together when other labelled dimensions remain.

    A reduction over all units freezes them as soon as its result is used.
    """
    vary = set(varying(plane))
    if not vary & set(dims):
        return plane
    rest = tuple(vary - set(dims))
    if not rest:
        reason = f"{tracer.where(op)}: reduces over all units"
        tracer.pending.hold(results, plane.reshape(-1).numpy(), reason)
        return None
    return collapse(tracer, plane, rest, tracer.where(op))


@register(
    "sum",
    "mean",
    "amax",
    "amin",
    "max",
    "min",
    "argmax",
    "argmin",
    "var",
    "std",
    "var_mean",
    "std_mean",
    "prod",
    "any",
    "all",
    "logsumexp",
    "linalg_vector_norm",
    "norm",
    "nansum",
    "median",
)
def reduce(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """Reductions along given dimensions (all of them when none is given)."""
    x: Tensor = args[0]
    name = func.overloadpacket.__name__
    if len(tensors_in(args)) > 1:
        from rlprune.structure.rules._registry import elementwise

        elementwise(tracer, func, args, kwargs, out)
        return
    dim = argument(func, args, kwargs, "dim")
    if dim is None or dim == []:
        dims = tuple(range(x.ndim))
    else:
        dims = tuple(d % x.ndim for d in (dim if isinstance(dim, (list, tuple)) else [dim]))
    keepdim = bool(argument(func, args, kwargs, "keepdim"))
    planes = []
    for plane in tracer.planes(x):
        small = _reduced(tracer, plane, dims, name, tensors_in(out))
        if small is not None:
            if not keepdim:
                shape = [n for d, n in enumerate(small.shape) if d not in dims]
                small = small.reshape(shape)
            planes.append(small)
    for result in tensors_in(out):
        tracer.set_planes(result, planes, weight=tracer.is_weight(x))


@register("_softmax", "_log_softmax", "_safe_softmax", "cumsum", "cumprod", "sort", "topk")
def along(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """Ops that mix positions along one dimension and keep the shape."""
    x: Tensor = args[0]
    dim = argument(func, args, kwargs, "dim") % x.ndim
    planes = []
    for plane in tracer.planes(x):
        if dim in varying(plane):
            small = _reduced(tracer, plane, (dim,), func.overloadpacket.__name__, tensors_in(out))
            if small is None:
                continue
            plane = small
        planes.append(plane)
    for result in tensors_in(out):
        tracer.set_planes(result, planes)


@register(
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "max_pool1d",
    "max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "adaptive_avg_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "upsample_trilinear3d",
    "upsample_linear1d",
    "_upsample_bilinear2d_aa",
    "_upsample_nearest_exact2d",
    "grid_sampler_2d",
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
    "fractional_max_pool2d",
    "fractional_max_pool3d",
    "adaptive_max_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "max_pool3d",
    "_upsample_nearest_exact1d",
    "_upsample_nearest_exact3d",
    "_upsample_bicubic2d_aa",
    "grid_sampler_3d",
    "max_unpool2d",
    "max_unpool3d",
)
def spatial(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """Pooling, resizing and padding of the last dimensions leave channels alone."""
    x: Tensor = args[0]
    name = func.overloadpacket.__name__
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
