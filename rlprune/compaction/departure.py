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
import torch
from torch import Tensor, nn

from rlprune.ops import named
from rlprune.ops.labels import compress, varying
from rlprune.ops.nested import leaves
from rlprune.plan import Plan
from rlprune.structure.groups import Groups
from rlprune.structure.passes import ops_of
from rlprune.structure.records import Step
from rlprune.structure.zero_flow import sources

CURE = (
    "a size is probably written into that forward: take it from the input's shape (for example "
    "x.flatten(1)) or exclude the group it belongs to"
)


_ADDITIONS = ("add", "add_")
_OWN = "the model's own forward"


@dataclass(frozen=True)
class Departure:
    """The first op of a compacted network that is not what its plan predicts.

    Attributes:
        index: its number in the trace of the dense network; -1 where nothing could be traced.
        module: path of the module that runs it ("" for the model itself).
        op: its name.
        detail: what is wrong, in words.
        otherwise: whether another op runs in its place, which a kernel chosen by how a tensor lies
            in memory may be.
    """

    index: int
    module: str
    op: str
    detail: str
    otherwise: bool = False

    @property
    def reason(self) -> str:
        """Where and what, in words: the reason why a group is left whole."""
        return f"{self.op} in {self.module or _OWN}: {self.detail}"


def first_departure(
    groups: Groups, small: nn.Module, plan: Plan, prediction: Prediction | None = None
) -> Departure | None:
    """Trace a compacted network and compare every op with what the plan predicts.

    The same ops must run in the same order, with the same numbers as arguments, and give results
    of the predicted shapes. Of a forward that looks at values, which may take other ways with other
    weights, only the shapes of the common way are compared.

    Args:
        groups: of the dense network.
        small: the compacted network; it is left in eval mode, and with what it keeps of a pass.
        plan: what it was cut to.
        prediction: reuse one over several plans of the same groups.
    """
    prediction = prediction or Prediction(groups)
    removed = prediction.removed(plan)
    free = groups.trace.computed
    steps, failure = ops_of(small.eval(), groups.example_inputs, compute=free)
    dropped = groups.dropped(plan.widths)
    covered = frozenset().union(*(b.covered for b in dropped))
    loose = frozenset().union(*(b.loose for b in dropped))
    before = [(i, s) for i, s in enumerate(groups.trace.steps) if i not in covered]
    steps = [s for s in steps if not any(b.holds(s.module) for b in dropped)]
    met = -1
    for i, now in _aligned([s for _, s in before], steps):
        met = i
        index, step = before[i]
        if step.op != now.op and {step.op, now.op} != {"mm", "addmm"}:
            where = f"in {now.module or _OWN}" if now.module != step.module else "there"
            if free:
                return None
            instead = f"{now.op} runs {where} instead"
            return Departure(index, step.module, step.op, instead, otherwise=True)
        if index not in loose:
            detail = prediction.wrong_shape(index, now, removed)
            if detail is None and not free and step.op == now.op:
                detail = _wrong_numbers(prediction.numbers(index), _numbers(now))
            if detail is not None and free and failure is None and _counts_values(step.op):
                return None  # from here on sizes follow values, as of tokens sent to an expert
            if detail is not None:
                return _at(index, step, detail)
    if failure is not None:
        text = f"{type(failure).__name__}: {str(failure).strip()}".split("\n")[0]
        return _at(*before[min(met + 1, len(before) - 1)], f"fails with {text}")
    after = [
        (i, s) for i, s in before[met + 1 :] if not named(s.op).layout and s.op not in _ADDITIONS
    ]
    return None if free or not after else _at(*after[0], "no longer runs")


def _counts_values(op: str) -> bool:
    """Whether the size of an op's result depends on values: ``nonzero``, ``x[mask]``."""
    packet = getattr(torch.ops.aten, op, None)
    return packet is not None and any(
        torch.Tag.dynamic_output_shape in getattr(packet, overload).tags
        for overload in packet.overloads()
    )


def _at(index: int, step: Step, detail: str) -> Departure:
    return Departure(index, step.module, step.op, detail)


class Prediction:
    """Shapes that plans predict for the results of the dense network's ops."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._labels = groups.trace.labels
        self._roots = self._labels.roots()
        self._read = {
            (s.step, s.result) for step in groups.trace.steps for s in sources(step) if s.step >= 0
        }
        self._lines: dict[tuple[int, int], list[tuple[int, np.ndarray]]] = {}
        self._numbers: dict[int, list[Any]] = {}

    def removed(self, plan: Plan) -> np.ndarray:
        """Whether a plan removes the unit of each label, [labels]."""
        removed = np.zeros(len(self._labels), dtype=bool)
        for name, units in plan.keep.items():
            gone = np.ones(plan.dense[name], dtype=bool)
            gone[list(units)] = False
            removed[self._groups.members[name][gone]] = True
        return removed

    def shape(self, index: int, k: int, removed: np.ndarray) -> tuple[int, ...]:
        """Predicted shape of result ``k`` of op ``index``."""
        kept = [np.ones(n, dtype=bool) for n in self._groups.trace.steps[index].shapes[k]]
        for dim, line in self._units(index, k):
            kept[dim] &= ~removed[line]
        return tuple(int(alive.sum()) for alive in kept)

    def numbers(self, index: int) -> list[Any]:
        """The numbers that op ``index`` is given in the dense network."""
        if index not in self._numbers:
            self._numbers[index] = _numbers(self._groups.trace.steps[index])
        return self._numbers[index]

    def wrong_shape(self, index: int, now: Step, removed: np.ndarray) -> str | None:
        """What is wrong with the shapes that an op gives in a smaller network; None if nothing.

        Statistics and the like that an op gives beside its result count only if they are read.
        """
        step = self._groups.trace.steps[index]
        if len(now.shapes) != len(step.shapes):
            return f"gives {len(now.shapes)} tensors where {len(step.shapes)} are needed"
        for k, shape in enumerate(now.shapes):
            if k and (index, k) not in self._read:
                continue
            want = self.shape(index, k, removed)
            pairs = zip(shape, want, strict=False)
            wrong = [d for d, (a, b) in enumerate(pairs) if a != b and d not in step.free[k]]
            if len(shape) != len(want) or wrong:
                return f"gives shape {shape} where {want} is needed"
        return None

    def _units(self, index: int, k: int) -> list[tuple[int, np.ndarray]]:
        """Root labels along every dimension of a result in which they change."""
        if (index, k) not in self._lines:
            found = []
            for raw in self._groups.trace.steps[index].planes[k]:
                plane = compress(self._labels, raw)
                for dim in () if plane is None else varying(plane):
                    assert plane is not None
                    line: Tensor = plane.movedim(dim, 0).reshape(plane.shape[dim], -1)[:, 0]
                    found.append((dim, self._roots[line.numpy()]))
            self._lines[index, k] = found
        return self._lines[index, k]


def _aligned(dense: Sequence[Step], small: Sequence[Step]) -> Iterator[tuple[int, Step]]:
    """Positions in one trace with the steps of another that stand there.

    Passed over are copies that only one of them needs, and the addition of a bias where a linear
    layer adds it in a step of its own: both depend on how a tensor lies in memory.
    """
    i = j = apart = 0
    while i < len(dense) and j < len(small):
        ops = (dense[i].op, small[j].op)
        if ops[0] == ops[1]:
            pass
        elif set(ops) == {"mm", "addmm"}:
            apart += 1 if ops[0] == "mm" else -1
        elif named(ops[1]).layout:
            j += 1
            continue
        elif named(ops[0]).layout:
            i += 1
            continue
        elif apart > 0 and ops[0].startswith("add"):
            i, apart = i + 1, apart - 1
            continue
        elif apart < 0 and ops[1].startswith("add"):
            j, apart = j + 1, apart + 1
            continue
        yield i, small[j]
        i, j = i + 1, j + 1


def _numbers(step: Step) -> list[Any]:
    """Floating-point arguments, and whole numbers where they are values rather than sizes."""
    kinds = (float, int) if named(step.op).pointwise else (float,)
    found = leaves((step.args, step.kwargs))
    return [x for x in found if isinstance(x, kinds) and not isinstance(x, bool)]


def _wrong_numbers(needed: Sequence[Any], given: Sequence[Any]) -> str | None:
    """What is wrong with the numbers that an op is given; None if nothing."""
    if len(needed) == len(given) and all(
        x == y or (x != x and y != y) or isclose(x, y, rel_tol=1e-9)
        for x, y in zip(needed, given, strict=True)
    ):
        return None
    return f"gets the numbers {_told(given)} where {_told(needed)} are needed"


def _told(numbers: Sequence[Any]) -> str:
    return ", ".join(f"{x:g}" for x in numbers) or "no numbers"
