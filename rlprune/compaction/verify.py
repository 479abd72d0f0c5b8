"""Law 1 on the example inputs: the masked and the compacted network must agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.compaction.adapters.settle import trial_plan
from rlprune.compaction.build import build, mask_in_place
from rlprune.errors import StructureError
from rlprune.inputs import call
from rlprune.modes import attention_spelled_out, evaluating
from rlprune.ops.labels import compress, varying
from rlprune.plan import Plan
from rlprune.structure.groups import Groups
from rlprune.structure.records import Step
from rlprune.structure.run import run_trace, tensor_leaves
from rlprune.structure.twin import copied

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


def masked_copy(groups: Groups, plan: Plan) -> nn.Module:
    """A dense copy of the network in which the removed units are silenced."""
    plan.check(groups)
    model = copied(groups.model, {})
    mask_in_place(groups, model, plan)
    return model


def difference(masked: nn.Module, small: nn.Module, example_inputs: Any) -> tuple[float, float]:
    """Largest absolute difference of two networks' outputs, and the outputs' largest magnitude."""
    with torch.no_grad(), attention_spelled_out(), evaluating(masked), evaluating(small):
        expected = tensor_leaves(call(masked, example_inputs))
        got = tensor_leaves(call(small, example_inputs))
    worst = scale = 0.0
    for a, b in zip(expected, got, strict=True):
        if a.shape != b.shape:
            raise StructureError(
                f"an output has shape {tuple(b.shape)} after compaction, {tuple(a.shape)} before"
            )
        if a.is_floating_point() and a.numel():
            worst = max(worst, float((a.double() - b.double()).abs().max()))
            scale = max(scale, float(a.double().abs().max()))
    return worst, scale


def probe(groups: Groups) -> float:
    """Verify one plan that shrinks every group to about half.

    A size written into a ``forward`` shows at once, before a search has spent its time.

    Returns:
        The largest absolute difference of the outputs.

    Raises:
        StructureError: as `verify`.
    """
    plan = trial_plan(groups)
    return verify(groups, build(groups, plan), plan)


def verify(groups: Groups, small: nn.Module, plan: Plan) -> float:
    """Compare a compacted network with its masked twin on the example inputs.

    Returns:
        The largest absolute difference of the outputs.

    Raises:
        StructureError: it does not run or does not agree; names the module and the op where its
            shapes depart from what the plan predicts.
    """
    if any(p.device.type == "meta" for p in small.parameters()):
        return 0.0
    try:
        worst, scale = difference(masked_copy(groups, plan), small, groups.example_inputs)
    except Exception as error:
        place = departure(groups, small, plan) or "no op has an unexpected shape"
        place = f"{place} ({type(error).__name__}: {error})"
        raise StructureError(f"the compacted network does not run: {place}") from error
    dtype = next((p.dtype for p in small.parameters()), torch.float32)
    tolerance = TOLERANCE.get(dtype, 0.1) * max(1.0, scale)
    if not worst <= tolerance:
        place = departure(groups, small, plan) or "no op has an unexpected shape"
        raise StructureError(
            f"the compacted network differs from the masked one by {worst:.3g} "
            f"(allowed {tolerance:.3g}): {place}"
        )
    return worst


@dataclass(frozen=True)
class Departure:
    """The first op of a compacted network whose shape is not what its plan predicts.

    Attributes:
        index: its number in the trace.
        module: path of the module that runs it ("" for the model itself).
        message: what is wrong, in words.
    """

    index: int
    module: str
    message: str


COPIES = {"clone", "view", "_unsafe_view", "alias", "expand", "as_strided"}
CURE = (
    "a size is probably written into that forward: take it from the input's shape (for example "
    "x.flatten(1)) or exclude the group it belongs to"
)


def departure(groups: Groups, small: nn.Module, plan: Plan) -> str | None:
    """`first_departure` in words."""
    found = first_departure(groups, small, plan)
    return None if found is None else found.message


def first_departure(groups: Groups, small: nn.Module, plan: Plan) -> Departure | None:
    """Trace a compacted network and compare every op's shape with the plan's prediction."""
    labels = groups.trace.labels
    roots = labels.roots()
    removed = np.zeros(len(labels), dtype=bool)
    for name, units in plan.keep.items():
        gone = np.ones(plan.dense[name], dtype=bool)
        gone[list(units)] = False
        removed[groups.members[name][gone]] = True

    def expected(step: Step, k: int) -> tuple[int, ...]:
        kept = [np.ones(n, dtype=bool) for n in step.shapes[k]]
        for raw in step.planes[k]:
            plane = compress(labels, raw)
            if plane is None:
                continue
            for dim in varying(plane):
                line: Tensor = plane.movedim(dim, 0).reshape(plane.shape[dim], -1)[:, 0]
                kept[dim] &= ~removed[roots[line.numpy()]]
        return tuple(int(alive.sum()) for alive in kept)

    before = ""
    failure = None
    steps: Sequence[Step]
    try:
        steps = run_trace(small, groups.example_inputs, train=False).trace.steps
    except StructureError as error:
        steps = error.steps
        failure = str(error)
    dropped = groups.dropped(plan.widths)
    covered = frozenset().union(*(b.covered for b in dropped))
    loose = frozenset().union(*(b.loose for b in dropped))
    before_steps = [(i, s) for i, s in enumerate(groups.trace.steps) if i not in covered]
    steps = [s for s in steps if not any(b.holds(s.module) for b in dropped)]
    for index, step, now in _aligned(before_steps, steps):
        where = now.module or "the model's own forward"
        if step.op != now.op:
            before = f"op '{now.op}' runs in {where} where '{step.op}' ran before"
            break
        for k, shape in enumerate(() if index in loose else now.shapes):
            want = expected(step, k) if k < len(step.shapes) else ()
            if shape != want:
                return Departure(
                    index,
                    now.module,
                    f"op '{now.op}' in {where} gives shape {shape} where {want} is needed; {CURE}",
                )
        before = f"after op '{now.op}' in {where}"
    if failure is not None:
        _, step = before_steps[min(len(steps), len(before_steps) - 1)]
        where = step.module or "the model's own forward"
        return Departure(
            len(steps),
            step.module,
            f"op '{step.op}' in {where} fails ({before}): {failure}; {CURE}",
        )
    return None


def _aligned(
    dense: Sequence[tuple[int, Step]], small: Sequence[Step]
) -> Iterator[tuple[int, Step, Step]]:
    """Steps of two traces side by side; copies that only one of them needs are passed over."""
    i = j = 0
    while i < len(dense) and j < len(small):
        index, step = dense[i]
        if step.op != small[j].op:
            if small[j].op in COPIES:
                j += 1
                continue
            if step.op in COPIES:
                i += 1
                continue
        yield index, step, small[j]
        i, j = i + 1, j + 1
