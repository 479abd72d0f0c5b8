"""The table of operations: one record each, how an op finds its own, and the default rules."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from rlprune.ops.joining import merge, tensors_in
from rlprune.ops.notes import Contraction, Factor
from rlprune.ops.record import Op, Rule, Zeros, overloads

if TYPE_CHECKING:
    from rlprune.ops.tracer import Tracer

logger = logging.getLogger(__name__)

_RECORDS: dict[str, Op] = {}
_FOUND: dict[Any, Op] = {}
_NAMED: dict[str, Op] = {}


def apply_rule(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """Propagate labels through one op.

    An in-place op follows the rule of its functional form, which may run on labels without writing
    into them.
    """
    op = find(func)
    if not op.pointwise and func._schema.is_mutable:
        func = _functional(func)
    try:
        op.labels(tracer, func, args, kwargs, out)
    except Exception as error:
        reason = f"{tracer.where(name_of(func))}: rlprune cannot follow this call"
        logger.warning("%s (%s: %s)", reason, type(error).__name__, error)
        leave_whole(tracer, func, reason, args, kwargs, out)


def elementwise(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """Point-wise ops: operands that meet are joined (a residual addition couples channels)."""
    name = name_of(func)
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
    weight = find(func).zeros_in(args, kwargs) is not Zeros.NEVER and all(
        tracer.is_weight(t) or t.numel() == 1 for t in inputs
    )
    for result in results:
        tracer.set_planes(result, planes, weight=weight)


def unknown(
    tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> None:
    """The default: an op nobody has described freezes the units it touches."""
    reason = f"{tracer.where(name_of(func))}: rlprune has no rule for this op"
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
    inputs = tensors_in(args, kwargs)
    for tensor in inputs:
        tracer.freeze(tracer.planes(tensor), reason)
    for tensor in tensors_in(out):
        tracer.set_planes(tensor, ())
    tracer.note_whole(reason, inputs)
    macs = find(func).macs
    if macs is not None:
        tracer.record(Contraction(tracer.current(), name_of(func), (Factor(macs(args, out)),)))


def register(
    names: str, labels: Rule = elementwise, *, replace: bool = False, **facts: Any
) -> None:
    """Give operations their records.

    Args:
        names: of one or more operations, separated by blanks: "relu", "mylib::gate", or with an
            overload that differs from the others, "max.other". Names that this PyTorch lacks do no
            harm; the in-place form needs no record of its own.
        labels: the rule for labels; by default the operation works value by value.
        replace: whether records may take the place of earlier ones.
        **facts: the other fields of `Op`.

    Raises:
        ValueError: an operation has a record already.
    """
    for name in names.split():
        name = name.removeprefix("aten::")
        if name in _RECORDS and not replace:
            raise ValueError(
                f"the operation '{name}' has a record already; give replace=True to replace it"
            )
        _RECORDS[name] = Op(name, labels, labels is elementwise, **facts)
    _FOUND.clear()
    _NAMED.clear()


def records() -> tuple[Op, ...]:
    """All records, in order of registration."""
    return tuple(_RECORDS.values())


def name_of(func: Any) -> str:
    """Name of an op as traces keep it: "add_", "mylib::gate"."""
    return str(func.overloadpacket._qualified_op_name.removeprefix("aten::"))


def find(func: Any) -> Op:
    """Record of an op overload; a default one where nobody has described it."""
    op = _FOUND.get(func)
    if op is None:
        name = name_of(func)
        op = _RECORDS.get(f"{name}.{func._overloadname}") or named(name)
        _FOUND[func] = op
    return op


def named(name: str) -> Op:
    """Record of the op of that name, as `name_of` gives it."""
    op = _NAMED.get(name)
    if op is None:
        op = _RECORDS.get(name) or _RECORDS.get(name.removesuffix("_")) or _default(name)
        _NAMED[name] = op
    return op


def _default(name: str) -> Op:
    """An op that PyTorch calls point-wise works value by value; nothing is known of another."""
    pointwise = any(torch.Tag.pointwise in func.tags for func in overloads(name))
    rule = elementwise if pointwise else unknown
    return Op(name.removesuffix("_"), rule, pointwise)


def _functional(func: Any) -> Any:
    """The form of an in-place op that returns a new tensor; the op itself where it has none."""

    def takes(overload: Any) -> list[tuple[str, str]]:
        return [(a.name, str(a.type)) for a in overload._schema.arguments]

    forms = overloads(name_of(func).removesuffix("_"))
    return next((form for form in forms if takes(form) == takes(func)), func)
