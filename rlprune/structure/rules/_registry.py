"""The table of rules and how an op finds its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from rlprune.budgets.contractions import CONTRACTIONS as COUNTERS
from rlprune.structure.labels import Planes, expand_ndim, varying
from rlprune.structure.uniform import meet

if TYPE_CHECKING:
    from rlprune.structure.trace import Tracer

Rule = Callable[["Tracer", Any, tuple[Any, ...], dict[str, Any], Any], None]

logger = logging.getLogger(__name__)

RULES: dict[Any, Rule] = {}
CONTRACTIONS: set[Any] = set()
aten = torch.ops.aten
UNTAGGED_POINTWISE = {"hardswish", "_prelu_kernel", "masked_fill", "rsub", "log_sigmoid_forward"}

ZERO_KEEPING = {"mul", "div", "neg", "abs", "relu", "tanh", "sign", "sgn", "square", "_to_copy"}
"""Point-wise ops after which a parameter is still a weight: where it is zero, so is the result."""


def register(*names: str, contraction: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule for ATen ops by name; names this PyTorch lacks are passed over."""

    def decorate(rule: Rule) -> Rule:
        for name in names:
            packet = getattr(aten, name, None)
            if packet is not None:
                RULES[packet] = rule
                if contraction:
                    CONTRACTIONS.add(packet)
        return rule

    return decorate


def tensors_in(*values: Any) -> list[Tensor]:
    """All tensors in nested arguments, in order."""
    return [x for x in tree_leaves(values) if isinstance(x, Tensor)]


def apply_rule(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """Propagate labels through one op."""
    rule = RULES.get(func.overloadpacket)
    if rule is None:
        name = func.overloadpacket.__name__.removesuffix("_")
        pointwise = torch.Tag.pointwise in func.tags or name in UNTAGGED_POINTWISE
        rule = elementwise if pointwise else opaque
    try:
        rule(tracer, func, args, kwargs, out)
    except Exception as error:
        name = func.overloadpacket.__name__
        reason = f"{tracer.where(name)}: rlprune cannot follow this call"
        logger.warning("%s (%s: %s)", reason, type(error).__name__, error)
        leave_whole(tracer, func, reason, args, kwargs, out)


def opaque(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """The default: an op nobody has described freezes the units it touches."""
    reason = f"{tracer.where(func.overloadpacket.__name__)}: rlprune has no rule for this op"
    if ".parametrizations." in tracer.current():
        reason += "; bake it in first with torch.nn.utils.parametrize.remove_parametrizations"
    leave_whole(tracer, func, reason, args, kwargs, out)


def leave_whole(
    tracer: Tracer,
    func: Any,
    reason: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    out: Any,
) -> None:
    """Freeze every unit that goes into an op; what comes out has a fixed size."""
    from rlprune.structure.records import Contraction, Factor

    inputs = tensors_in(args, kwargs)
    for tensor in inputs:
        tracer.freeze(tracer.planes(tensor), reason)
    for tensor in tensors_in(out):
        tracer.set_planes(tensor, ())
    tracer.note_whole(reason, inputs)
    count = COUNTERS.get(func.overloadpacket)
    if count is not None:
        name = func.overloadpacket.__name__
        tracer.record(Contraction(tracer.current(), name, (Factor(count(args, out)),)))


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
    from rlprune.structure.records import Meeting
    from rlprune.structure.rules.contraction import collapse

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


def elementwise(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """Point-wise ops: operands that meet are joined (a residual addition couples channels)."""
    name = func.overloadpacket.__name__
    inputs = tensors_in(args, kwargs)
    results = tensors_in(out)
    if not results:
        return
    ndim = max(t.ndim for t in inputs)
    operands = [(t, tracer.planes(t)) for t in inputs]
    inplace = inputs[0] is results[0]
    if inplace and not operands[0][1] and any(p for _, p in operands[1:]):
        for _, planes in operands[1:]:
            tracer.freeze(
                planes, f"{tracer.where(name)}: written into a tensor whose size is fixed"
            )
        return
    planes = merge(tracer, operands, ndim, name)
    weight = name.removesuffix("_") in ZERO_KEEPING and all(
        tracer.is_weight(t) or t.numel() == 1 for t in inputs
    )
    for result in results:
        tracer.set_planes(result, planes, weight=weight)


register("copy_", "copy")(elementwise)
