"""How ops treat a unit that is a multiple of another, where more than its name decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from rlprune.compensation.merge.paths import Affine, State
from rlprune.compensation.merge.values import NOTHING
from rlprune.ops import Scaling, named
from rlprune.structure.records import Operand, Step

if TYPE_CHECKING:
    from rlprune.compensation.merge.walk import Walk


def add(walk: Walk, step: Step, group: str) -> State | None:
    """Sums of terms of one degree; a vector added to a term that no activation has changed."""
    a, b = (walk.value(x) for x in step.args[:2])
    sign = -1 if named(step.op).name == "sub" else 1
    factor = sign * float(step.kwargs.get("alpha", 1.0))
    if group in a.states and group in b.states:
        return walk.settled(group, a.states[group], b.states[group])
    carrier, other = (a, b) if group in a.states else (b, a)
    state = carrier.states[group]
    if not isinstance(step.args[1], Operand):
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
        for factor in (first, second):
            walk.found[group].settle(factor.term)
        return NOTHING if NOTHING in (first, second) else State(first.degree + second.degree)
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


def each(walk: Walk, step: Step, group: str) -> State | None:
    """Ops that scale every unit by itself, with a degree that may depend on the call."""
    degree = named(step.op).degree_in(step.args, step.kwargs)
    states = [v.states[group] for v in walk.operands(step) if group in v.states]
    state = None if degree is None else walk.settled(group, *states)
    if degree is None or state is None or state is NOTHING:
        return state
    return State(state.degree * degree)


def all_alike(walk: Walk, step: Step, group: str) -> State | None:
    """The larger or smaller of operands that all scale alike."""
    whole = all(group in v.states for v in walk.operands(step))
    return each(walk, step, group) if whole else None


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
    at = named(step.op).operands
    assert at is not None
    assert at.bias is not None
    assert at.statistics is not None
    places = (at.weight, at.bias, *at.statistics)
    vectors = [walk.value(step.args[k]).weight for k in places]
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


RULES: Mapping[Scaling, Callable[[Walk, Step, str], State | None]] = {
    Scaling.EACH: each,
    Scaling.ALL: all_alike,
    Scaling.SUM: add,
    Scaling.PRODUCT: multiply,
    Scaling.QUOTIENT: divide,
    Scaling.SLOPES: prelu,
    Scaling.NORM: batch_norm,
}
