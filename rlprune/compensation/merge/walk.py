"""Abstract interpretation of a trace: how each op treats a unit that is a multiple of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils._pytree import tree_leaves

from rlprune.compensation.merge.paths import Affine, Path, State, Term
from rlprune.compensation.merge.rules import RULES
from rlprune.compensation.merge.values import NOTHING, Value, Weight
from rlprune.ops import Makes, Moves, Op, Scaling, Zeros, named
from rlprune.structure.records import Operand, Step

if TYPE_CHECKING:
    from rlprune.structure import Groups


class Walk:
    """Carries `State` along the steps of a trace, one per tensor and group."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self.found = {g.name: Path() for g in groups.prunable}
        trace = groups.trace
        self._roots = trace.labels.roots()
        self._names = [g.name for g in groups.prunable]
        self._owner = np.full(len(trace.labels), -1, dtype=np.int64)
        for k, name in enumerate(self._names):
            self._owner[groups.members[name]] = k
        self._roles: dict[str, dict[str, set[str]]] = {}
        for name in self._names:
            for part in groups.slices(name):
                of = self._roles.setdefault(part.tensor, {})
                of.setdefault(name, set()).add(part.role)
        self._values: dict[tuple[int, int], Value] = {}
        self._step = Step("", "", (), ())

    def run(self) -> dict[str, Path]:
        """Interpret every step; returns the paths by group."""
        for index, step in enumerate(self.groups.trace.steps):
            self._step = step
            results = self._interpret(step)
            for k, value in enumerate(results):
                value.carried = self._carried(step, k)
                value.states = {g: s for g, s in value.states.items() if g in value.carried}
                self._values[index, k] = value
        return self.found

    def _carried(self, step: Step, k: int) -> frozenset[str]:
        owners: set[int] = set()
        for plane in step.planes[k]:
            owners |= set(np.unique(self._owner[self._roots[plane.numpy()]]).tolist())
        return frozenset(self._names[g] for g in owners if g >= 0)

    def value(self, source: Any) -> Value:
        """What is known of an operand; numbers and inputs of the network carry nothing."""
        if not isinstance(source, Operand):
            return Value()
        if source.tensor >= 0:
            return Value(weight=Weight((self.groups.trace.names[source.tensor],)))
        value = self._values.get((source.step, source.result), Value())
        if value.weight is None:
            for group in value.carried - value.states.keys():
                self.refuse(group, "its values were not followed to here")
        return value

    def refuse(self, group: str, what: str) -> None:
        """Give a group up, for the first reason found."""
        path = self.found[group]
        if not path.reason:
            path.reason = f"'{self._step.op}' in {self._step.module or 'the model'}: {what}"

    def roles(self, value: Value, group: str) -> set[str]:
        """The roles in which a weight indexes a group."""
        if value.weight is None:
            return set()
        return set().union(*(self._roles.get(n, {}).get(group, ()) for n in value.weight.names))

    def operands(self, step: Step) -> list[Value]:
        """What is known of every tensor operand of a step."""
        leaves = tree_leaves((step.args, dict(step.kwargs)))
        return [self.value(s) for s in leaves if isinstance(s, Operand)]

    def _interpret(self, step: Step) -> list[Value]:
        op = named(step.op)
        operands = self.operands(step)
        blank = [Value() for _ in step.shapes]
        if not blank or op.makes is not Makes.NOTHING:
            return [Value(zero=op.makes is Makes.ZEROS) for _ in blank]
        if self._makes_zero(op, step):
            return [Value(zero=k == 0 or op.listed) for k in range(len(blank))]
        if operands and all(v.weight for v in operands):
            names = tuple(dict.fromkeys(n for v in operands if v.weight for n in v.weight.names))
            moved = op.moves is not Moves.NO
            pure = moved and all(v.weight.pure for v in operands if v.weight)
            if op.scaling is not Scaling.LAYER:
                return [Value(weight=Weight(names, pure)) for _ in step.shapes]
        live = list(dict.fromkeys(g for v in operands for g in v.states))
        if op.scaling is Scaling.LAYER:
            blank[0].states = self._product(op, step)
        elif live:
            for group in live:
                if self.found[group].reason:
                    continue
                state = self._scaled(op, step, group)
                if state is None:
                    self.refuse(group, "it is not positively homogeneous")
                    continue
                for value in blank if op.listed else blank[:1]:
                    value.states[group] = state
            joined = op.scaling is Scaling.EACH
            if joined and all(v.states or self._zero(v) for v in operands):
                for group in self._carried(step, 0).difference(live):
                    blank[0].states[group] = NOTHING
        return blank

    def _makes_zero(self, op: Op, step: Step) -> bool:
        """Whether the result is zero because an operand is."""
        which = op.zeros_in(step.args, step.kwargs)
        operands = [] if which is Zeros.NEVER else [x for x in step.args if isinstance(x, Operand)]
        return any(self.value(x).zero for x in operands[: 1 if which is Zeros.FIRST else None])

    def _scaled(self, op: Op, step: Step, group: str) -> State | None:
        """What an op's result is to a group that some operand carries."""
        if op.moves is not Moves.NO:
            return self.operands(step)[0].states[group]
        rule = RULES.get(op.scaling)
        return None if rule is None else rule(self, step, group)

    def _zero(self, value: Value) -> bool:
        """Whether a tensor is zero everywhere: made so, or a buffer of zeros."""
        if value.weight is None or not value.weight.pure:
            return value.zero
        return not any(bool(self.groups.tensors[n].any()) for n in value.weight.names)

    def settled(self, group: str, *states: State) -> State | None:
        """The state of a sum, or of any op that needs its operands to scale alike."""
        for state in states:
            self.found[group].settle(state.term)
        degrees = {s.degree for s in states if s is not NOTHING}
        if len(degrees) > 1:
            return None
        return State(degrees.pop()) if degrees else NOTHING

    def _product(self, op: Op, step: Step) -> dict[str, State]:
        """Contractions: they read the units of some groups and produce those of others."""
        parts = _product_operands(op, step)
        bias, (a, b) = self.value(parts.bias), (self.value(parts.a), self.value(parts.b))
        produced = self._carried(step, 0)
        x, weight = (a, b) if b.weight else (b, a)
        made = produced - x.states.keys()
        if weight.weight is None:
            self._refuse_all({*x.states, *weight.states, *made}, "two activations are multiplied")
            return {}
        touched = {g for n in weight.weight.names for g in self._roles.get(n, {})}
        if not weight.weight.pure:
            self._refuse_all({*x.states, *touched}, "its weight is computed")
            return {}
        if parts.grouped:
            self._refuse_all({*x.states, *touched}, "each unit is filtered by itself or by block")
            return {}
        name = weight.weight.names[0]
        out = {}
        for group, state in x.states.items():
            path = self.found[group]
            if "in" in self.roles(weight, group):
                path.settle(state.term)
                if state is NOTHING:
                    continue
                if path.consumers.setdefault(name, state.degree) != state.degree:
                    self.refuse(group, "one weight reads its units at different degrees")
            elif group in produced and not isinstance(parts.bias, Operand):
                out[group] = self.settled(group, state) or state
            else:
                self.refuse(group, "its units are mixed with others")
        for group in produced:
            if "out" not in self.roles(weight, group):
                continue
            chain: tuple[Affine, ...] = ()
            if isinstance(parts.bias, Operand):
                if bias.weight is None or not bias.weight.pure or not parts.plain:
                    self.refuse(group, "its bias is computed")
                    continue
                chain = (Affine("add", bias.weight.names),)
            out[group] = State(1.0, Term(name, chain))
        return out

    def _refuse_all(self, names: set[str], what: str) -> None:
        for name in names:
            self.refuse(name, what)


@dataclass(frozen=True)
class _Operands:
    """Operands of a layer-like op; ``plain`` where no factor scales the product or the bias."""

    bias: Any
    a: Any
    b: Any
    grouped: bool
    plain: bool


def _product_operands(op: Op, step: Step) -> _Operands:
    at, args = op.operands, step.args
    assert at is not None
    bias = args[at.bias] if at.bias is not None and len(args) > at.bias else None
    grouped = at.groups is not None and args[at.groups] > 1
    plain = all(step.kwargs.get(k, 1) == 1 for k in ("alpha", "beta"))
    return _Operands(bias, args[at.x], args[at.weight], grouped, plain)
