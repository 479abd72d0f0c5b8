"""Reductions and softmax: fine along unlabelled dimensions, joined or frozen along others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from rlprune.ops.joining import argument, collapse, tensors_in
from rlprune.ops.labels import varying
from rlprune.ops.record import Scaling, Zeros
from rlprune.ops.table import name_of, register

if TYPE_CHECKING:
    from rlprune.ops.tracer import Tracer


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


def reduce(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """Reductions along given dimensions (all of them when none is given)."""
    x: Tensor = args[0]
    name = name_of(func)
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


def along(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """Ops that mix positions along one dimension and keep the shape."""
    x: Tensor = args[0]
    dim = argument(func, args, kwargs, "dim") % x.ndim
    planes = []
    for plane in tracer.planes(x):
        if dim in varying(plane):
            small = _reduced(tracer, plane, (dim,), name_of(func), tensors_in(out))
            if small is None:
                continue
            plane = small
        planes.append(plane)
    for result in tensors_in(out):
        tracer.set_planes(result, planes)


def mixed(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """Ops that mix positions along some dimensions as their number says: Fourier transforms."""
    x: Tensor = args[0]
    dims = argument(func, args, kwargs, "dim") or (-2, -1)
    dims = {d % x.ndim for d in dims}
    planes = []
    for plane in tracer.planes(x):
        rest = tuple(set(varying(plane)) - dims)
        where = f"{tracer.where(name_of(func))}: it depends on the number of positions"
        if dims & set(varying(plane)) and not rest:
            tracer.freeze((plane,), where)
        else:
            planes.append(collapse(tracer, plane, rest, where))
    for result in tensors_in(out):
        tracer.set_planes(result, planes)


register(
    "sum nansum mean amax amin linalg_vector_norm", reduce, zeros=Zeros.FIRST, scaling=Scaling.EACH
)
register("prod norm var std median", reduce, zeros=Zeros.FIRST)
register("max min var_mean std_mean argmax argmin any all logsumexp", reduce)
register("cumsum", along, zeros=Zeros.FIRST, scaling=Scaling.EACH)
register("cumprod sort topk", along, zeros=Zeros.FIRST)
register("cummax cummin logcumsumexp", along)
register("kthvalue mode aminmax count_nonzero", reduce)
register("_fft_r2c _fft_c2r _fft_c2c tril triu", mixed, zeros=Zeros.FIRST, scaling=Scaling.EACH)
register("_softmax _log_softmax _safe_softmax", along)
