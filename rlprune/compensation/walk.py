"""Abstract interpretation of a trace: how each op treats a unit that is a multiple of another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils._pytree import tree_leaves

from rlprune.compensation.paths import Affine, Path, State, Term
from rlprune.structure.records import Source, Step

if TYPE_CHECKING:
    from rlprune.structure import Groups


def _ops(names: str) -> frozenset[str]:
    return frozenset(names.split())


MOVES = _ops(
    "view reshape _unsafe_view _reshape_alias permute transpose t unsqueeze squeeze flip movedim "
    "alias detach clone contiguous _to_copy lift_fresh positive dropout expand"
)
"""Ops that hand on every value they are given, once each or repeated."""

KEEPS = _ops(
    "relu leaky_relu abs neg cat concatenate stack split split_with_sizes chunk unbind slice "
    "select index index_select narrow roll repeat repeat_interleave gather unfold im2col "
    "pixel_shuffle pixel_unshuffle channel_shuffle mean sum nansum amax amin maximum minimum "
    "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices avg_pool1d "
    "avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d fractional_max_pool2d reflection_pad1d reflection_pad2d reflection_pad3d "
    "replication_pad1d replication_pad2d replication_pad3d upsample_nearest1d upsample_nearest2d "
    "upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "_upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d "
    "upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa linalg_vector_norm "
    "cumsum"
)
"""Ops with f(t x) = t f(x) for t > 0, applied to each unit alone; several operands scale alike."""

LISTS = _ops("split split_with_sizes chunk unbind")
BLANK = _ops(
    "zeros_like ones_like full_like empty_like rand_like randn_like fill zero new_zeros new_ones "
    "new_full new_empty empty zeros"
)
ZEROS = _ops("zeros zeros_like new_zeros zero")
NORMS = _ops(
    "native_batch_norm _native_batch_norm_legit_no_training _native_batch_norm_legit "
    "cudnn_batch_norm miopen_batch_norm _batch_norm_no_update _batch_norm_with_update"
)
PRODUCTS = _ops("convolution _convolution mm addmm bmm baddbmm mv linear embedding")


NOTHING = State(0.0)
"""Zeros: a multiple of anything, at any degree."""


@dataclass(frozen=True)
class Weight:
    """A tensor made of parameters; ``pure`` where it is one of them, only rearranged."""

    names: tuple[str, ...]
    pure: bool = True


@dataclass
class Value:
    """What is known of one tensor of the trace; ``zero`` where it is zero everywhere."""

    states: dict[str, State] = field(default_factory=dict)
    weight: Weight | None = None
    carried: frozenset[str] = frozenset()
    zero: bool = False


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
            rule = _RULES.get(op)
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
        return None if alone else self._settled(group, *states)

    def _settled(self, group: str, *states: State) -> State | None:
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
                out[group] = self._settled(group, state) or state
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

    def add(self, step: Step, group: str) -> State | None:
        """Sums of terms of one degree; a vector added to a term that no activation has changed."""
        a, b = (self.value(x) for x in step.args[:2])
        factor = float(step.kwargs.get("alpha", 1.0)) * (-1 if step.op.startswith("sub") else 1)
        if group in a.states and group in b.states:
            return self._settled(group, a.states[group], b.states[group])
        carrier, other = (a, b) if group in a.states else (b, a)
        state = carrier.states[group]
        if not isinstance(step.args[1], Source):
            return state if step.args[1] == 0 else None
        if carrier is b and (factor != 1.0):
            return None
        if other.weight is None or not other.weight.pure or not self.roles(other, group):
            return None
        if state.term is None:
            self.refuse(group, "a bias is added after an activation")
            return None
        return _longer(state, Affine("add", other.weight.names, factor))

    def multiply(self, step: Step, group: str) -> State | None:
        """Degrees add where both operands follow the unit; what all units share is a factor."""
        a, b = (self.value(x) for x in step.args[:2])
        if group in a.states and group in b.states:
            first, second = a.states[group], b.states[group]
            return self._powered(group, (first, second), first.degree + second.degree)
        carrier, other = (a, b) if group in a.states else (b, a)
        state = carrier.states[group]
        if not self.roles(other, group):
            return self._settled(group, state)
        if other.weight is None or not other.weight.pure or state.term is None:
            return None
        return _longer(state, Affine("mul", other.weight.names))

    def divide(self, step: Step, group: str) -> State | None:
        """Division by what is common to all units."""
        a, b = (self.value(x) for x in step.args[:2])
        if group in b.states or self.roles(b, group) or step.kwargs.get("rounding_mode"):
            return None
        return self._settled(group, a.states[group])

    def power(self, step: Step, group: str) -> State | None:
        """``x ** n`` and its relatives multiply the degree."""
        state = self.value(step.args[0]).states.get(group)
        exponents = {"square": 2.0, "sqrt": 0.5}
        exponent = exponents.get(step.op.rstrip("_")) or step.args[1]
        if state is None or isinstance(exponent, Source) or exponent <= 0:
            return None
        return self._powered(group, (state,), state.degree * float(exponent))

    def _powered(self, group: str, states: tuple[State, ...], degree: float) -> State:
        for state in states:
            self.found[group].settle(state.term)
        return NOTHING if NOTHING in states else State(degree)

    def cut(self, step: Step, group: str) -> State | None:
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
        return self._settled(group, self.value(step.args[0]).states[group]) if fine else None

    def prelu(self, step: Step, group: str) -> State | None:
        """PReLU with one slope for all units."""
        slope = self.value(step.args[1])
        if slope.weight is None or self.groups.tensors[slope.weight.names[0]].numel() > 1:
            self.refuse(group, "it has one slope per unit")
            return None
        return self._settled(group, self.value(step.args[0]).states[group])

    def batch_norm(self, step: Step, group: str) -> State | None:
        """Batch normalisation of a producer's own output folds into it."""
        state = self.value(step.args[0]).states[group]
        vectors = [self.value(x).weight for x in step.args[1:5]]
        if state.term is None:
            self.refuse(group, "batch normalisation after an activation or a sum")
            return None
        training = len(step.args) > 7 and bool(step.args[5])
        if vectors[2] is None or vectors[3] is None or training:
            self.refuse(group, "it keeps no running statistics")
            return None
        if any(v is not None and not v.pure for v in vectors):
            return None
        names = tuple(v.names[0] if v else "" for v in vectors)
        return _longer(state, Affine("bn", names, float(step.args[-1])))


def _longer(state: State, affine: Affine) -> State:
    assert state.term is not None
    return State(state.degree, replace(state.term, chain=(*state.term.chain, affine)))


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


_RULES: Mapping[str, Callable[[Walk, Step, str], State | None]] = {
    "add": Walk.add,
    "sub": Walk.add,
    "mul": Walk.multiply,
    "div": Walk.divide,
    "pow": Walk.power,
    "square": Walk.power,
    "sqrt": Walk.power,
    "clamp": Walk.cut,
    "clamp_min": Walk.cut,
    "clamp_max": Walk.cut,
    "threshold": Walk.cut,
    "constant_pad_nd": Walk.cut,
    "_prelu_kernel": Walk.prelu,
    "prelu": Walk.prelu,
    "batch_norm": Walk.batch_norm,
    **dict.fromkeys(NORMS, Walk.batch_norm),
}
