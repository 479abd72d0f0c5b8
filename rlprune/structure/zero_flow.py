"""Which parameters, set to zero, make an operand of an addition exactly zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rlprune.ops import Moves, Zeros, named
from rlprune.ops.nested import leaves
from rlprune.structure.records import Operand, Step


def sources(step: Step) -> list[Operand]:
    """Every tensor operand of a step."""
    return [x for x in leaves((step.args, step.kwargs)) if isinstance(x, Operand)]


def keeps_zero(step: Step) -> tuple[Operand, ...]:
    """Operands any of which, being zero, makes the result zero."""
    zeros = named(step.op).zeros_in(step.args, step.kwargs)
    if zeros is Zeros.NEVER:
        return ()
    operands = tuple(a for a in step.args if isinstance(a, Operand))
    return operands if zeros is Zeros.ANY else operands[:1]


def elementwise(step: Step) -> bool:
    """Whether a step changes one tensor value by value, or copies it."""
    op = named(step.op)
    return op.moves is Moves.COPIES or (op.pointwise and len(sources(step)) == 1)


def silencing(
    steps: Sequence[Step], operand: Operand, inside: Callable[[Operand], bool]
) -> tuple[int, tuple[int, ...]] | None:
    """The op whose parameters decide about an operand, and those parameters.

    Args:
        steps: of the trace.
        operand: of an addition.
        inside: whether a tensor is made in the branch.

    Returns:
        Number of the step and numbers of the tensors that must be zero; None where there is none.
    """
    step = steps[operand.step]
    found = _parameters(steps, step)
    if found is not None:
        return operand.step, found
    for source in keeps_zero(step):
        if inside(source):
            deeper = silencing(steps, source, inside)
            if deeper is not None:
                return deeper
    return None


def _parameters(steps: Sequence[Step], step: Step) -> tuple[int, ...] | None:
    """Weight and bias of a convolution, linear layer or normalisation."""
    at = named(step.op).operands
    if at is None:
        return None
    args = (*step.args, *[None] * 4)
    weight, bias = args[at.weight], None if at.bias is None else args[at.bias]
    found = [_tensor(steps, x) for x in (weight, bias) if x is not None]
    return None if weight is None or None in found else tuple(x for x in found if x is not None)


def _tensor(steps: Sequence[Step], value: Any) -> int | None:
    """The stored tensor an operand is, possibly rearranged."""
    while isinstance(value, Operand) and value.step >= 0:
        step = steps[value.step]
        if named(step.op).moves is Moves.NO:
            return None
        value = step.args[0]
    return value.tensor if isinstance(value, Operand) and value.tensor >= 0 else None
