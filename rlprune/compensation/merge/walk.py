"""Abstract interpretation of a trace: how each op treats a unit that is a multiple of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils._pytree import tree_leaves

from rlprune.compensation.merge.op_kinds import (
    BLANK,
    KEEPS,
    LISTS,
    MOVES,
    NORMS,
    PRODUCTS,
    ZEROS,
)
from rlprune.compensation.merge.paths import Affine, Path, State, Term
from rlprune.compensation.merge.rules import RULES
from rlprune.compensation.merge.values import NOTHING, Value, Weight
from rlprune.structure.records import Source, Step

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
        if not isinstance(source, Source):
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

    def _interpret(self, step: Step) -> list[Value]:
        op = step.op if step.op in PRODUCTS | NORMS else step.op.rstrip("_")
        sources = [x for x in tree_leaves((step.args, dict(step.kwargs))) if isinstance(x, Source)]
        operands = [self.value(s) for s in sources]
        blank = [Value() for _ in step.shapes]
        if not blank or op in BLANK:
            return [Value(zero=op in ZEROS) for _ in blank]
        if op in MOVES and operands and operands[0].zero:
            return [Value(zero=True) for _ in blank]
        if operands and all(v.weight for v in operands):
            names = tuple(dict.fromkeys(n for v in operands if v.weight for n in v.weight.names))
            pure = op in MOVES and all(v.weight.pure for v in operands if v.weight)
            if op not in PRODUCTS:
                return [Value(weight=Weight(names, pure)) for _ in step.shapes]
        live = list(dict.fromkeys(g for v in operands for g in v.states))
        if op in PRODUCTS:
            blank[0].states = self._product(op, step)
        elif live:
            rule = RULES.get(op)
            for group in live:
                if self.found[group].reason:
                    continue
                state = self._unary(op, step, operands, group) if rule is None else None
                state = state if rule is None else rule(self, step, group)
                if state is None:
                    self.refuse(group, "it is not positively homogeneous")
                    continue
                for value in blank if op in LISTS else blank[:1]:
                    value.states[group] = state
            if op in ("cat", "constant_pad_nd") and all(
                v.states or self._zero(v) for v in operands
            ):
                for group in self._carried(step, 0).difference(live):
                    blank[0].states[group] = NOTHING
        return blank

    def _zero(self, value: Value) -> bool:
        """Whether a tensor is zero everywhere: made so, or a buffer of zeros."""
        if value.weight is None or not value.weight.pure:
            return value.zero
        return not any(bool(self.groups.tensors[n].any()) for n in value.weight.names)

    def _unary(self, op: str, step: Step, operands: list[Value], group: str) -> State | None:
        """Ops that treat all their operands alike."""
        states = [v.states[group] for v in operands if group in v.states]
        if op in MOVES:
            return states[0]
        if op not in KEEPS:
            return None
        alone = op in ("maximum", "minimum") and len(states) < 2
        return None if alone else self.settled(group, *states)

    def settled(self, group: str, *states: State) -> State | None:
        """The state of a sum, or of any op that needs its operands to scale alike."""
        for state in states:
            self.found[group].settle(state.term)
        degrees = {s.degree for s in states if s is not NOTHING}
        if len(degrees) > 1:
            return None
        return State(degrees.pop()) if degrees else NOTHING

    def _product(self, op: str, step: Step) -> dict[str, State]:
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
            elif group in produced and not isinstance(parts.bias, Source):
                out[group] = self.settled(group, state) or state
            else:
                self.refuse(group, "its units are mixed with others")
        for group in produced:
            if "out" not in self.roles(weight, group):
                continue
            chain: tuple[Affine, ...] = ()
            if isinstance(parts.bias, Source):
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
    bias: Any
    a: Any
    b: Any
    grouped: bool = False
    plain: bool = True


def _product_operands(op: str, step: Step) -> _Operands:
    args = step.args
    if op in ("convolution", "_convolution"):
        return _Operands(args[2], args[0], args[1], grouped=args[8] > 1)
    if op in ("addmm", "baddbmm"):
        factors = {k: v for k, v in step.kwargs.items() if k in ("alpha", "beta")}
        return _Operands(args[0], args[1], args[2], plain=all(v == 1 for v in factors.values()))
    if op == "linear":
        return _Operands(args[2] if len(args) > 2 else None, args[0], args[1])
    if op == "embedding":
        return _Operands(None, args[1], args[0])
    return _Operands(None, args[0], args[1])
