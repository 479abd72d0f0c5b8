"""How ops treat a unit that is a multiple of another, where more than its name decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from rlprune.compensation.merge.op_kinds import NORMS
from rlprune.compensation.merge.paths import Affine, State
from rlprune.compensation.merge.values import NOTHING
from rlprune.structure.records import Source, Step

if TYPE_CHECKING:
    from rlprune.compensation.merge.walk import Walk


def add(walk: Walk, step: Step, group: str) -> State | None:
    """Sums of terms of one degree; a vector added to a term that no activation has changed."""
    a, b = (walk.value(x) for x in step.args[:2])
    factor = float(step.kwargs.get("alpha", 1.0)) * (-1 if step.op.startswith("sub") else 1)
    if group in a.states and group in b.states:
        return walk.settled(group, a.states[group], b.states[group])
    carrier, other = (a, b) if group in a.states else (b, a)
    state = carrier.states[group]
    if not isinstance(step.args[1], Source):
        return state if step.args[1] == 0 else None
    if carrier is b and (factor != 1.0):
        return None
    if other.weight is None or not other.weight.pure or not walk.roles(other, group):
        return None
    if state.term is None:
        walk.refuse(group, "a bias is added after an activation")
        return None
    return _longer(state, Affine("add", other.weight.names, factor))


def multiply(walk: Walk, step: Step, group: str) -> State | None:
    """Degrees add where both operands follow the unit; what all units share is a factor."""
    a, b = (walk.value(x) for x in step.args[:2])
    if group in a.states and group in b.states:
        first, second = a.states[group], b.states[group]
        return _powered(walk, group, (first, second), first.degree + second.degree)
    carrier, other = (a, b) if group in a.states else (b, a)
    state = carrier.states[group]
    if not walk.roles(other, group):
        return walk.settled(group, state)
    if other.weight is None or not other.weight.pure or state.term is None:
        return None
    return _longer(state, Affine("mul", other.weight.names))


def divide(walk: Walk, step: Step, group: str) -> State | None:
    """Division by what is common to all units."""
    a, b = (walk.value(x) for x in step.args[:2])
    if group in b.states or walk.roles(b, group) or step.kwargs.get("rounding_mode"):
        return None
    return walk.settled(group, a.states[group])


def power(walk: Walk, step: Step, group: str) -> State | None:
    """``x ** n`` and its relatives multiply the degree."""
    state = walk.value(step.args[0]).states.get(group)
    exponents = {"square": 2.0, "sqrt": 0.5}
    exponent = exponents.get(step.op.rstrip("_")) or step.args[1]
    if state is None or isinstance(exponent, Source) or exponent <= 0:
        return None
    return _powered(walk, group, (state,), state.degree * float(exponent))


def _powered(walk: Walk, group: str, states: tuple[State, ...], degree: float) -> State:
    for state in states:
        walk.found[group].settle(state.term)
    return NOTHING if NOTHING in states else State(degree)


def cut(walk: Walk, step: Step, group: str) -> State | None:
    """Clamps and thresholds at zero alone."""
    op, rest = step.op.rstrip("_"), [*step.args[1:], *step.kwargs.values()]
    low = rest[0] if rest else None
    fine = {
        "clamp": low == 0 and (len(rest) < 2 or rest[1] is None),
        "clamp_min": low == 0,
        "clamp_max": low == 0,
        "threshold": rest[:2] == [0, 0],
        "constant_pad_nd": len(rest) < 2 or rest[1] == 0,
    }[op]
    return walk.settled(group, walk.value(step.args[0]).states[group]) if fine else None


def prelu(walk: Walk, step: Step, group: str) -> State | None:
    """PReLU with one slope for all units."""
    slope = walk.value(step.args[1])
    if slope.weight is None or walk.groups.tensors[slope.weight.names[0]].numel() > 1:
        walk.refuse(group, "it has one slope per unit")
        return None
    return walk.settled(group, walk.value(step.args[0]).states[group])


def batch_norm(walk: Walk, step: Step, group: str) -> State | None:
    """Batch normalisation of a producer's own output folds into it."""
    state = walk.value(step.args[0]).states[group]
    vectors = [walk.value(x).weight for x in step.args[1:5]]
    if state.term is None:
        walk.refuse(group, "batch normalisation after an activation or a sum")
        return None
    training = len(step.args) > 7 and bool(step.args[5])
    if vectors[2] is None or vectors[3] is None or training:
        walk.refuse(group, "it keeps no running statistics")
        return None
    if any(v is not None and not v.pure for v in vectors):
        return None
    names = tuple(v.names[0] if v else "" for v in vectors)
    return _longer(state, Affine("bn", names, float(step.args[-1])))


def _longer(state: State, affine: Affine) -> State:
    assert state.term is not None
    return State(state.degree, replace(state.term, chain=(*state.term.chain, affine)))


RULES: Mapping[str, Callable[[Walk, Step, str], State | None]] = {
    "add": add,
    "sub": add,
    "mul": multiply,
    "div": divide,
    "pow": power,
    "square": power,
    "sqrt": power,
    "clamp": cut,
    "clamp_min": cut,
    "clamp_max": cut,
    "threshold": cut,
    "constant_pad_nd": cut,
    "_prelu_kernel": prelu,
    "prelu": prelu,
    "batch_norm": batch_norm,
    **dict.fromkeys(NORMS, batch_norm),
}
