"""Residual branches that can be dropped whole.

A branch is what one operand of an addition depends on and nothing else does. It may be dropped when

- its last parametrised op can be silenced by zeros in its weights, and nothing after it turns zero
  into something else: that is the masked network;
- what runs in it runs in modules that can be replaced by `Zeros` of their input, or element by
  element, so that nothing is computed without it: that is the compacted network;
- what enters it has the units and the shape of what leaves it, so the zeros fit at every width.

One more trace, of the network without any of its branches, proves that everything else runs as
before.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from rlprune.errors import RlpruneError
from rlprune.ops import named
from rlprune.structure.groups import Slice
from rlprune.structure.records import Branch, ModuleCall, Operand, Step, Trace
from rlprune.structure.run import Run, run_trace
from rlprune.structure.stand_ins import Skip, Zeros
from rlprune.structure.twin import copied
from rlprune.structure.zero_flow import elementwise, silencing, sources

logger = logging.getLogger(__name__)


def without(model: nn.Module, branches: Sequence[Branch], memo: dict[int, Any]) -> nn.Module:
    """Copy a network, leaving out some of its branches; ``memo`` as in `copied`."""
    for branch in branches:
        for path, nones in branch.zeros.items():
            memo[id(model.get_submodule(path))] = Zeros(nones)
        for path in branch.skips:
            memo[id(model.get_submodule(path))] = Skip()
    return copied(model, memo)


def find_branches(
    model: nn.Module,
    inputs: Any,
    run: Run,
    slices: Mapping[str, Sequence[Slice]],
    removable: np.ndarray,
) -> tuple[Branch, ...]:
    """Every residual branch of a network that can be dropped, in execution order.

    Args:
        model: the network.
        inputs: what it was traced with.
        run: its trace.
        slices: of every prunable group.
        removable: which root labels are units of prunable groups, [labels].
    """
    found = _Finder(model, run, slices, removable).find()
    prefixes = [_prefix(b.modules) for b in found]
    found = [
        replace(b, name=p) if p and prefixes.count(p) == 1 else b
        for b, p in zip(found, prefixes, strict=True)
    ]
    return _that_run(model, inputs, run.trace, found)


def _that_run(
    model: nn.Module, inputs: Any, dense: Trace, branches: Sequence[Branch]
) -> tuple[Branch, ...]:
    """Those of some branches without which all else runs: all, or what halves of them give."""
    if not branches or _runs(model, inputs, dense, branches):
        return tuple(branches)
    if len(branches) == 1:
        return ()
    half = len(branches) // 2
    parts = (branches[:half], branches[half:])
    return tuple(b for part in parts for b in _that_run(model, inputs, dense, part))


def _prefix(paths: Sequence[str]) -> str:
    common: list[str] = []
    for parts in zip(*(p.split(".") for p in paths), strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common)


def _runs(model: nn.Module, inputs: Any, dense: Trace, branches: Sequence[Branch]) -> bool:
    """Whether the network without the branches runs all other ops as before."""
    try:
        memo: dict[int, Any] = {id(p): p for p in model.parameters()}
        trace = run_trace(without(model, branches, memo), inputs, more=False).trace
    except RlpruneError as error:
        logger.debug("dropping %s fails: %s", [b.name for b in branches], error)
        return False
    covered = frozenset().union(*(b.covered for b in branches))
    loose = frozenset().union(*(b.loose for b in branches))
    gone = {m for b in branches for m in b.modules}
    before = [
        (s, i in loose)
        for i, s in enumerate(dense.steps)
        if i not in covered and not named(s.op).layout
    ]
    after = [s for s in trace.steps if s.module not in gone and not named(s.op).layout]
    return len(before) == len(after) and all(
        (a.module, a.op) == (b.module, b.op) and (free or a.shapes == b.shapes)
        for (a, free), b in zip(before, after, strict=True)
    )


@dataclass(frozen=True)
class _Path:
    """The way through a branch: its zeros, what follows them, and the ops between modules."""

    zeros: tuple[ModuleCall, ...]
    last: ModuleCall
    skips: tuple[ModuleCall, ...]
    loose: frozenset[int]
    kept: frozenset[int]


class _Finder:
    """Looks for branches in one trace."""

    def __init__(
        self,
        model: nn.Module,
        run: Run,
        slices: Mapping[str, Sequence[Slice]],
        removable: np.ndarray,
    ) -> None:
        self.model, self.run, self.trace = model, run, run.trace
        self.steps: Sequence[Step] = run.trace.steps
        self.slices = slices
        self.roots = run.trace.labels.roots()
        self.removable = removable
        self.parameters = {n for n, _ in model.named_parameters(remove_duplicate=False)}
        self.readers: dict[int, list[int]] = {}
        self.uses: dict[int, list[int]] = {}
        for i, step in enumerate(self.steps):
            for source in sources(step):
                if source.step >= 0:
                    self.readers.setdefault(source.step, []).append(i)
                elif source.tensor >= 0:
                    self.uses.setdefault(source.tensor, []).append(i)
        self.dead: set[int] = set()
        for i in range(len(self.steps) - 1, -1, -1):
            seen = i in run.trace.outputs or not self.steps[i].shapes
            if not seen and all(r in self.dead for r in self.readers.get(i, ())):
                self.dead.add(i)
        self.calls: dict[str, list[ModuleCall]] = {}
        for call in run.trace.calls:
            if call.end > call.start and call.module:
                self.calls.setdefault(call.module, []).append(call)

    def find(self) -> list[Branch]:
        """Branches that do not overlap, the inner ones of nested branches."""
        found: list[Branch] = []
        for i, step in enumerate(self.steps):
            operands = [a for a in step.args if isinstance(a, Operand)]
            if named(step.op).name != "add" or len(operands) != 2:
                continue
            for operand, other in (operands, operands[::-1]):
                if operand.step < 0 or self._shape(operand) != self._shape(other):
                    continue
                branch = self._branch(i, operand)
                if branch is not None and not any(branch.covered & b.covered for b in found):
                    found.append(branch)
        return sorted(found, key=lambda b: min(b.covered))

    def _shape(self, source: Operand) -> tuple[int, ...]:
        return self.steps[source.step].shapes[source.result] if source.step >= 0 else ()

    def _region(self, addition: int, operand: int) -> set[int]:
        """Steps that reach the operand of the addition and nothing else.

        What is read by nobody, but for the memory it writes into, does not count.
        """
        if self.readers.get(operand) != [addition] or operand in self.trace.outputs:
            return set()
        region, waiting = {operand}, {operand}
        while waiting:
            step = max(waiting)
            waiting.remove(step)
            for source in sources(self.steps[step]):
                s = source.step
                if s < 0 or s in region or s in self.trace.outputs:
                    continue
                if all(r in region or r in self.dead for r in self.readers[s]):
                    region.add(s)
                    waiting.add(s)
        return region

    def _branch(self, addition: int, operand: Operand) -> Branch | None:
        region = self._region(addition, operand.step)
        if not region:
            return None
        silent = silencing(self.steps, operand, lambda s: s.step in region)
        if silent is None:
            return None
        path = self._path(region, operand, silent[0])
        if path is None:
            return None
        calls = (*path.zeros, *path.skips)
        modules = tuple(dict.fromkeys(c.module for c in calls))
        covered = frozenset(i for c in calls for i in range(c.start, c.end))
        if region - covered - path.loose - path.kept:
            return None
        if not self._writes_only_inside(self._with_unread(region | covered)):
            return None
        tensors = self._tensors(modules, covered)
        names = {self.trace.names[t] for t in silent[1]}
        if tensors is None or not names <= tensors & self.parameters:
            return None
        if any(len(self.uses[t]) > 1 for t in silent[1]):
            return None
        groups = tuple(
            name for name, found in self.slices.items() if {s.tensor for s in found} <= tensors
        )
        if not groups:
            return None
        return Branch(
            path.last.module,
            groups,
            {c.module: c.nones for c in path.zeros},
            tuple(dict.fromkeys(c.module for c in path.skips)),
            tuple(self.trace.names[t] for t in silent[1]),
            tensors,
            covered,
            path.loose,
        )

    def _with_unread(self, steps: set[int]) -> set[int]:
        """Some steps and all that read them to no end."""
        found, waiting = set(steps), list(steps)
        while waiting:
            fresh = {r for r in self.readers.get(waiting.pop(), ()) if r in self.dead} - found
            found |= fresh
            waiting += fresh
        return found

    def _writes_only_inside(self, region: set[int]) -> bool:
        """Whether no op of the region writes into memory made outside of it."""
        for i in region:
            step = self.steps[i]
            if not step.op.endswith("_"):
                continue
            target = next((a for a in step.args if isinstance(a, Operand)), Operand())
            while target.step in region and named(self.steps[target.step].op).view:
                target = self.steps[target.step].args[0]
            if target.step not in region:
                return False
        return True

    def _path(self, region: set[int], operand: Operand, silent: int) -> _Path | None:
        calls = self._replaceable(region)
        made = {c.output: c for c in calls}
        inside = {i for c in calls for i in range(c.start, c.end)}
        skips: list[ModuleCall] = []
        kept: set[int] = set()
        at = operand
        while True:
            call = made.get(at)
            if call is None:
                if at.step not in region or at.step in inside:
                    return None
                kept.add(at.step)
                within = [s for s in sources(self.steps[at.step]) if s.step in region]
                if len(within) != 1:
                    return None
                at = within[0]
            elif call.start <= silent < call.end:
                break
            else:
                if call.input is None or not self._alike(call.input, at):
                    return None
                skips.append(call)
                at = call.input
        last, leaving, loose = call, at, set()
        assert last.input is not None
        at = last.input
        while at.step in region:
            call = made.get(at)
            if call is not None and call.input is not None:
                at = call.input
                continue
            if at.step in inside or not elementwise(self.steps[at.step]):
                return None
            loose.add(at.step)
            at = sources(self.steps[at.step])[0]
        if not self._alike(at, leaving):
            return None
        zeros = tuple(c for c in calls if c not in skips)
        return _Path(zeros, last, tuple(skips), frozenset(loose), frozenset(kept))

    def _replaceable(self, region: set[int]) -> list[ModuleCall]:
        """Outermost module calls that run inside the region alone, tensor in, tensor out."""
        inside = [
            call
            for calls in self.calls.values()
            if all(
                c.input is not None
                and c.output is not None
                and all(i in region or i in self.dead for i in range(c.start, c.end))
                for c in calls
            )
            for call in calls
        ]
        outer: list[ModuleCall] = []
        for call in sorted(inside, key=lambda c: (c.start, -c.end, c.module.count("."))):
            if not outer or call.start >= outer[-1].end:
                outer.append(call)
        return outer

    def _tensors(self, modules: Sequence[str], covered: frozenset[int]) -> frozenset[str] | None:
        """Names of all tensors of some modules; None where they are known elsewhere too."""
        names = set()
        for index, aliases in self.run.aliases.items():
            held = [any(a.startswith(f"{m}.") for m in modules) for a in aliases]
            if any(held):
                if not all(held) or not covered.issuperset(self.uses.get(index, ())):
                    return None
                names.update(aliases)
        return frozenset(names)

    def _alike(self, a: Operand, b: Operand) -> bool:
        """Whether two tensors have the same shape and the same units at the same places."""
        return (
            a.step >= 0
            and b.step >= 0
            and self._shape(a) == self._shape(b)
            and self._units(a) == self._units(b)
        )

    def _units(self, source: Operand) -> frozenset[tuple[tuple[int, ...], bytes]]:
        planes = self.steps[source.step].planes[source.result]
        lines = (self._line(plane) for plane in planes)
        return frozenset((a.shape, a.tobytes()) for a in lines if a.size > 1)

    def _line(self, plane: Tensor) -> np.ndarray:
        """The removable units of a plane, size 1 along dimensions in which they do not change."""
        roots = self.roots[plane.numpy()]
        units = np.where(self.removable[roots], roots, 0)
        for dim in range(units.ndim):
            first = units.take([0], axis=dim)
            if (units == first).all():
                units = first
        return np.ascontiguousarray(units)
