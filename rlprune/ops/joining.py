"""What most rules are made of: joining labels where tensors meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rlprune.ops.labels import Planes, expand_ndim, varying
from rlprune.ops.nested import leaves
from rlprune.ops.notes import Meeting
from rlprune.ops.uniform import meet

if TYPE_CHECKING:
    from rlprune.ops.tracer import Tracer


def tensors_in(*values: Any) -> list[Tensor]:
    """All tensors in nested arguments, in order."""
    return [x for x in leaves(values) if isinstance(x, Tensor)]


def argument(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Any:
    """Value of a named argument of an ATen call, its default where it was left out."""
    for k, spec in enumerate(func._schema.arguments):
        if spec.name == name:
            if name in kwargs:
                return kwargs[name]
            return args[k] if k < len(args) else spec.default_value
    return None


def collapse(tracer: Tracer, plane: Tensor, keep: tuple[int, ...], reason: str) -> Tensor:
    """Join labels along every dimension but ``keep``; returns the plane, size 1 elsewhere."""
    for dim in varying(plane):
        if dim in keep:
            continue
        first = plane.narrow(dim, 0, 1)
        tracer.trace.labels.union(
            first.expand(plane.shape).contiguous().numpy(), plane.contiguous().numpy(), reason
        )
        plane = first
    return plane


def lines_along(planes: Sequence[Tensor], dim: int) -> list[Tensor]:
    """Labels along one dimension, of every plane that varies there."""
    found = [p for p in planes if dim in varying(p)]
    return [p.movedim(dim, 0).reshape(p.shape[dim], -1)[:, 0] for p in found]


def merge(
    tracer: Tracer,
    operands: list[tuple[Tensor, Planes]],
    ndim: int,
    op: str,
    defer: bool = True,
) -> Planes:
    """Planes of an element-wise combination of broadcast operands.

    Planes of different operands that vary along a common dimension are joined position by
    position. A plane that meets an unlabelled operand of full size is frozen, or, where it varies
    along other dimensions too (heads x head size), made to vary along those alone.
    """
    labels = tracer.trace.labels
    reason = f"{tracer.where(op)}: meets a tensor of fixed size (an input, a constant, padding)"
    out: list[Tensor] = []
    for i, (_, planes) in enumerate(operands):
        for raw in planes:
            plane = expand_ndim(raw, ndim)
            dims = set(varying(plane))
            out.append(plane)
            for j, (other, other_planes) in enumerate(operands):
                if j == i:
                    continue
                shape = (1,) * (ndim - other.ndim) + tuple(other.shape)
                fixed = {d for d in dims if shape[d] > 1}
                for d, size in tracer.uniform.sizes(other, ndim).items():
                    if {d} == dims and fixed and not other_planes:
                        meet(labels, size, plane, reason)
                        fixed = set()
                for raw_other in other_planes:
                    partner = expand_ndim(raw_other, ndim)
                    common = fixed & set(varying(partner))
                    fixed -= common
                    if common and defer and set(varying(partner)) < dims:
                        tracer.trace.meetings.append(Meeting(plane, partner, reason))
                    elif common and j > i and not (defer and dims < set(varying(partner))):
                        labels.union(plane.numpy(), partner.numpy(), reason)
                if fixed and dims - fixed:
                    out[-1] = plane = collapse(tracer, plane, tuple(dims - fixed), reason)
                elif fixed:
                    tracer.freeze((plane,), reason)
    return tuple(out)
