"""The table of rules and how an op finds its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from rlprune.structure.labels import Planes, expand_ndim, varying

if TYPE_CHECKING:
    from rlprune.structure.trace import Tracer

Rule = Callable[["Tracer", Any, tuple[Any, ...], dict[str, Any], Any], None]

RULES: dict[Any, Rule] = {}
CONTRACTIONS: set[Any] = set()
aten = torch.ops.aten
UNTAGGED_POINTWISE = {"hardswish", "_prelu_kernel", "masked_fill", "rsub", "log_sigmoid_forward"}


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
    rule(tracer, func, args, kwargs, out)


def opaque(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """The default: an op nobody has described freezes the units it touches."""
    name = func.overloadpacket.__name__
    for tensor in tensors_in(args, kwargs):
        tracer.freeze(
            tracer.planes(tensor), f"{tracer.where(name)}: rlprune has no rule for this op"
        )
    for tensor in tensors_in(out):
        tracer.set_planes(tensor, ())


def merge(tracer: Tracer, operands: list[tuple[Tensor, Planes]], ndim: int, op: str) -> Planes:
    """Planes of an element-wise combination of broadcast operands.

    Planes of different operands that vary along a common dimension are joined position by
    position; a plane that meets an unlabelled operand of full size there is frozen.
    """
    labels = tracer.trace.labels
    reason = f"{tracer.where(op)}: combined with a tensor whose size is fixed"
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
                if all(shape[d] == 1 for d in dims):
                    continue
                met = False
                for raw_other in other_planes:
                    partner = expand_ndim(raw_other, ndim)
                    if dims & set(varying(partner)):
                        met = True
                        if j > i:
                            labels.union(plane.numpy(), partner.numpy(), reason)
                if not met:
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
    weight = all(tracer.is_weight(t) for t in inputs if tracer.planes(t)) and not any(
        t.numel() > 1 and not tracer.is_weight(t) for t in inputs
    )
    for result in results:
        tracer.set_planes(result, planes, weight=weight)
