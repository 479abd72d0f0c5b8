"""Which groups may be to blame for a departure, the nearest first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from rlprune.compaction.departure import Departure
from rlprune.structure.groups import Groups
from rlprune.structure.records import Operand, Step
from rlprune.structure.zero_flow import sources


class Suspects:
    """The groups whose units ops meet."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        labels = groups.trace.labels
        self._roots = labels.roots()
        self._owner = np.full(len(labels), -1, dtype=np.int64)
        self._names = [g.name for g in groups.prunable]
        for k, name in enumerate(self._names):
            self._owner[groups.members[name]] = k
        self._kinds = {n: type(m) for n, m in groups.model.named_modules()}

    def levels(self, at: Departure, whole: Collection[str]) -> Iterator[list[str]]:
        """Sets of groups, each larger than the one before: at the op, in its module, above it."""
        steps = self.groups.trace.steps
        if not 0 <= at.index < len(steps):
            return
        seen: set[str] = set()
        for met in (self._made(steps[at.index]), self._read(steps[at.index])):
            names = [n for n in self._ordered(met) if n not in whole]
            if names and set(names) != seen:
                seen |= set(names)
                yield [n for n in self._names if n in seen]
        path = steps[at.index].module
        while True:
            inside = [s for s in steps[: at.index + 1] if not path or _within(s.module, path)]
            met = set().union(*(self._made(s) | self._read(s) for s in inside))
            names = [n for n in self._ordered(met) if n not in whole]
            if names and not set(names) <= seen:
                seen |= set(names)
                yield [n for n in self._names if n in seen]
            if not path:
                return
            path = path.rpartition(".")[0]

    def alike(self, at: Departure) -> Alike:
        """What stands to other modules of a class as something stands to the departing module."""
        return Alike(self._kinds, self.groups, at.module)

    def _ordered(self, numbers: set[int]) -> list[str]:
        return [self._names[k] for k in sorted(numbers)]

    def _made(self, step: Step) -> set[int]:
        found: set[int] = set()
        for planes in step.planes:
            for plane in planes:
                owners = self._owner[self._roots[plane.numpy().ravel()]]
                found.update(np.unique(owners[owners >= 0]).tolist())
        return found

    def _read(self, step: Step) -> set[int]:
        found: set[int] = set()
        for source in sources(step):
            if source.step >= 0:
                planes = self.groups.trace.steps[source.step].planes[source.result]
                for plane in planes:
                    owners = self._owner[self._roots[plane.numpy().ravel()]]
                    found.update(np.unique(owners[owners >= 0]).tolist())
            elif source.tensor >= 0:
                found |= self._held(source)
        return found

    def _held(self, source: Operand) -> set[int]:
        """Groups with units along a parameter or buffer."""
        name = self.groups.trace.names[source.tensor]
        return {
            k
            for k, group in enumerate(self._names)
            if any(s.tensor == name for s in self.groups.slices(group))
        }


class Alike:
    """Groups of other modules of one class, by their place."""

    def __init__(self, kinds: Mapping[str, type], groups: Groups, module: str) -> None:
        self._groups = {g.name: g for g in groups.prunable}
        self._module = module
        kind = kinds.get(module) if module else None
        self._others = [p for p, k in kinds.items() if k is kind and p != module]

    def names(self, names: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Module paths and the groups that stand to them as ``names`` do to the first module."""
        for path in self._others:
            for name in names:
                other = self._moved(name, path)
                if other is not None:
                    yield path, other

    def ties(self, ties: Sequence[Sequence[str]]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The same for sets of groups of one width."""
        for path in self._others:
            for names in ties:
                moved = [m for m in (self._moved(n, path) for n in names) if m is not None]
                widths = {self._groups[m].width for m in moved}
                if len(set(moved)) == len(names) and len(widths) == 1:
                    yield path, tuple(moved)

    def _moved(self, name: str, path: str) -> str | None:
        here, there, parts = self._module.split("."), path.split("."), name.split(".")
        common = 0
        while common < min(len(here), len(parts)) and here[common] == parts[common]:
            common += 1
        tail = here[common:]
        if tail and there[-len(tail) :] != tail:
            return None
        other = ".".join([*there[: len(there) - len(tail)], *parts[common:]])
        return other if other in self._groups else None


def _within(module: str, path: str) -> bool:
    return module == path or module.startswith(f"{path}.")
