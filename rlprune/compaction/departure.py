"""Where a compacted network departs from the dense one: op for op, shape for shape.

A smaller network that runs the same ops with the same numbers on tensors of the predicted shapes
computes what the masked one does. That is checked without computing a product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rlprune.errors import StructureError
from rlprune.ops import named
from rlprune.ops.labels import compress, varying
from rlprune.plan import Plan
from rlprune.structure.groups import Groups
from rlprune.structure.records import Step
from rlprune.structure.run import run_trace

CURE = (
    "a size is probably written into that forward: take it from the input's shape (for example "
    "x.flatten(1)) or exclude the group it belongs to"
)


@dataclass(frozen=True)
class Departure:
    """The first op of a compacted network that is not what its plan predicts.

    Attributes:
        index: its number in the trace.
        module: path of the module that runs it ("" for the model itself).
        message: what is wrong, in words.
    """

    index: int
    module: str
    message: str


def first_departure(groups: Groups, small: nn.Module, plan: Plan) -> Departure | None:
    """Trace a compacted network and compare every op with what the plan predicts.

    The same ops must run in the same order, with the same numbers as arguments, and give results
    of the predicted shapes. Of a forward that looks at values, which may take other ways with other
    weights, only the shapes of the common way are compared.
    """
    expected = _Prediction(groups, plan)
    failure = None
    steps: Sequence[Step]
    try:
        steps = run_trace(small, groups.example_inputs, more=False).trace.steps
    except StructureError as error:
        steps = error.steps
        failure = str(error)
    dropped = groups.dropped(plan.widths)
    covered = frozenset().union(*(b.covered for b in dropped))
    loose = frozenset().union(*(b.loose for b in dropped))
    before = [(i, s) for i, s in enumerate(groups.trace.steps) if i not in covered]
    steps = [s for s in steps if not any(b.holds(s.module) for b in dropped)]
    free = groups.trace.computed
    last = ""
    met = -1
    for i, now in _aligned([s for _, s in before], steps):
        met = i
        index, step = before[i]
        where = now.module or "the model's own forward"
        if step.op != now.op:
            last = f"op '{now.op}' runs in {where} where '{step.op}' ran before"
            if free:
                return None
            return Departure(index, step.module, last)
        shapes = () if index in loose else now.shapes
        if shapes and len(shapes) != len(step.shapes):
            message = (
                f"op '{now.op}' in {where} gives {len(shapes)} tensors, {len(step.shapes)} before"
            )
            return Departure(index, now.module, message)
        for k, shape in enumerate(shapes):
            want = expected(step, k)
            fixed = zip(shape, want, strict=False)
            differs = [d for d, (a, b) in enumerate(fixed) if a != b and d not in step.free[k]]
            if len(shape) != len(want) or differs:
                return Departure(
                    index,
                    now.module,
                    f"op '{now.op}' in {where} gives shape {shape} where {want} is needed",
                )
        if not free and not _same_numbers(step, now):
            return Departure(
                index,
                now.module,
                f"op '{now.op}' in {where} gets other numbers ({_told(now)}) than before "
                f"({_told(step)})",
            )
        last = f"after op '{now.op}' in {where}"
    if failure is not None:
        index, step = before[min(met + 1, len(before) - 1)]
        where = step.module or "the model's own forward"
        return Departure(index, step.module, f"op '{step.op}' in {where} fails ({last}): {failure}")
    after = [(i, s) for i, s in before[met + 1 :] if not named(s.op).layout]
    if after and not free:
        index, step = after[0]
        where = step.module or "the model's own forward"
        return Departure(index, step.module, f"op '{step.op}' in {where} no longer runs")
    return None


class _Prediction:
    """Shapes that a plan predicts for the results of the dense network's ops."""

    def __init__(self, groups: Groups, plan: Plan) -> None:
        self.labels = groups.trace.labels
        self.roots = self.labels.roots()
        self.removed = np.zeros(len(self.labels), dtype=bool)
        for name, units in plan.keep.items():
            gone = np.ones(plan.dense[name], dtype=bool)
            gone[list(units)] = False
            self.removed[groups.members[name][gone]] = True

    def __call__(self, step: Step, k: int) -> tuple[int, ...]:
        kept = [np.ones(n, dtype=bool) for n in step.shapes[k]]
        for raw in step.planes[k]:
            plane = compress(self.labels, raw)
            if plane is None:
                continue
            for dim in varying(plane):
                line: Tensor = plane.movedim(dim, 0).reshape(plane.shape[dim], -1)[:, 0]
                kept[dim] &= ~self.removed[self.roots[line.numpy()]]
        return tuple(int(alive.sum()) for alive in kept)


def _aligned(dense: Sequence[Step], small: Sequence[Step]) -> Iterator[tuple[int, Step]]:
    """Positions in one trace with the steps of another that stand there.

    Copies that only one of them needs are passed over.
    """
    i = j = 0
    while i < len(dense) and j < len(small):
        if dense[i].op != small[j].op:
            if named(small[j].op).layout:
                j += 1
                continue
            if named(dense[i].op).layout:
                i += 1
                continue
        yield i, small[j]
        i, j = i + 1, j + 1


def _numbers(step: Step) -> list[Any]:
    """Floating-point arguments, and whole numbers where they are values rather than sizes."""
    kinds = (float, int) if named(step.op).pointwise else (float,)
    found = tree_leaves((step.args, dict(step.kwargs)))
    return [x for x in found if isinstance(x, kinds) and not isinstance(x, bool)]


def _same_numbers(step: Step, now: Step) -> bool:
    a, b = _numbers(step), _numbers(now)
    return len(a) == len(b) and all(
        x == y or (x != x and y != y) or isclose(x, y, rel_tol=1e-9)
        for x, y in zip(a, b, strict=True)
    )


def _told(step: Step) -> str:
    return ", ".join(f"{x:g}" for x in _numbers(step)) or "none"
