"""Trying smaller networks out: which sizes outside tensors follow, and which groups cannot.

Plans that shrink every group unevenly, all to one width, and every other one as far as it goes are
built and run beside the dense network, op for op. At the first op that departs from what the
plan predicts, an integer of a module near by may repeat a width: it is made to follow if that moves
the departure on. Otherwise a size is written into a forward, and the groups whose units meet there
are left whole, or not let below a width: those and no others, as few as move it on. What one module
shows holds for the modules of its class, unless the network runs without it. In the end one network
runs with values, in float64 where that is cheap.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

from torch import nn

from rlprune.compaction.adapters.attributes import attributes_of
from rlprune.compaction.adapters.repeats import Repeat
from rlprune.compaction.adapters.rewriting import Edit
from rlprune.compaction.build import build
from rlprune.compaction.departure import Departure, Prediction, first_departure
from rlprune.compaction.plans import (
    Bonds,
    Maker,
    equal_plan,
    narrow_plan,
    uneven_plan,
)
from rlprune.compaction.slicing import Slicer
from rlprune.compaction.suspects import Suspects
from rlprune.compaction.verify import values_agree
from rlprune.plan import Plan
from rlprune.structure.groups import Groups

logger = logging.getLogger(__name__)

MOST = 80
"""Smaller networks run without values at most, and as many with; the rest is left whole."""
RECHECKS = 8
"""Sorts of groups left whole for another's sake that are tried out themselves."""
FIRST: Maker = uneven_plan
OTHERS: tuple[Maker, ...] = (equal_plan, partial(narrow_plan, half=0), partial(narrow_plan, half=1))


@dataclass
class Verdict:
    """What trials have shown.

    Attributes:
        whole: groups to leave whole, with the reason.
        ties: groups that one number counts, so that they must keep the same units; with the reason.
        floors: fewest units that groups must keep.
        following: classes and attributes of the integers that repeat a width.
        edits: sizes in modules' code that follow from now on.
    """

    whole: dict[str, str] = field(default_factory=dict)
    ties: dict[tuple[str, ...], str] = field(default_factory=dict)
    floors: dict[str, int] = field(default_factory=dict)
    following: set[tuple[type[nn.Module], str]] = field(default_factory=set)
    edits: list[Edit] = field(default_factory=list)

    def bonds(self, way: _Way | None = None) -> Bonds:
        """What plans must keep to, one more way being tried."""
        way = way or _Way()
        floors = {**self.floors, **dict(way.floors)}
        return Bonds({*self.whole, *way.whole}, [*self.ties, *way.ties], floors)


@dataclass(frozen=True)
class _Way:
    """Something that may move a departure on."""

    repeats: tuple[Repeat, ...] = ()
    edits: tuple[Edit, ...] = ()
    ties: tuple[tuple[str, ...], ...] = ()
    whole: tuple[str, ...] = ()
    floors: tuple[tuple[str, int], ...] = ()


def try_out(groups: Groups) -> Verdict:
    """Find out by trial what follows smaller widths, and what cannot."""
    return _Trial(groups).run()


class _Trial:
    def __init__(self, groups: Groups) -> None:
        self.groups, self.attributes = groups, attributes_of(groups)
        self.slicer, self.prediction = Slicer(groups), Prediction(groups)
        self.suspects = Suspects(groups)
        self.verdict = Verdict()
        self.guessed: dict[str, str] = {}
        self.seen: set[tuple[Any, ...]] = set()
        self.left = MOST
        self.plan = FIRST

    def run(self) -> Verdict:
        self._settle()
        self._recheck()
        for plan in OTHERS if self.groups.prunable else ():
            self.plan = plan
            self._settle()
        self.plan = FIRST
        self._values()
        return self.verdict

    def _settle(self) -> None:
        """Move departures on until the network of the plan at hand runs as it should."""
        found = self.departure()
        while found is not None:
            found = self._settled(found)

    def departure(self, way: _Way | None = None) -> Departure | None:
        """Where a smaller network departs, one more way being tried."""
        way = way or _Way()
        return self._traced(self.verdict.bonds(way), way.repeats, way.edits)

    def _traced(
        self, bonds: Bonds, repeats: Sequence[Repeat] = (), edits: Sequence[Edit] = ()
    ) -> Departure | None:
        self.left -= 1
        plan = self.plan(self.groups, bonds)
        with self.attributes.with_more(repeats, edits):
            try:
                small = build(self.groups, plan, self.slicer, share=True)
            except Exception as error:  # whatever a module's own hooks object to
                return Departure(-1, "", "copying", f"fails with {type(error).__name__}: {error}")
        return first_departure(self.groups, small, plan, self.prediction)

    def _settled(self, at: Departure) -> Departure | None:
        """Move a departure on by the mildest way that does; returns the next one.

        Where another op runs instead and values agree all the same, nothing is wrong. Where no way
        is found, values alone tell in the end what must be left whole.
        """
        rest = [g.name for g in self.groups.prunable if g.name not in self.verdict.whole]
        if at.otherwise and not self._is_meta() and self._agree_all_the_same(rest):
            return None
        if self.left > 0:
            for settle in (
                *(() if self.plan is FIRST else (self._by_floors,)),
                self._by_integers,
                self._by_edits,
                self._by_ties,
                self._by_wholes,
            ):
                way, found = settle(at)
                if way is not None:
                    return self._take(at, way, found)
        if self._is_meta() or self.plan is not FIRST:
            bonds = self.verdict.bonds()
            kept = self.plan(self.groups, bonds).widths
            shrunk = [n for n in rest if kept[n] < self.groups[n].width]
            self.verdict.whole |= dict.fromkeys(shrunk, at.reason)
        return None

    def _take(self, at: Departure, way: _Way, found: Departure | None) -> Departure | None:
        """Accept a way, and the like of it in other modules of the class; the next departure."""
        self.attributes.enable(way.repeats)
        self.verdict.following |= {(r.kind, r.attribute) for r in way.repeats}
        self.attributes.edit(way.edits)
        self.verdict.edits += way.edits
        self.verdict.floors |= way.floors
        alike = self.suspects.alike(at)
        ties = {t: f"{at.op} in {path}" for path, t in alike.ties(way.ties)}
        self.verdict.ties |= {t: at.reason for t in way.ties} | ties
        self.seen |= {self._signature(at.module, n) for n in way.whole}
        wholes = {n: p for p, n in alike.names(way.whole) if n not in self.verdict.whole}
        for name, path in wholes.items():
            self.verdict.whole[name] = f"{at.op} in {path}: as in {at.module}"
        self.verdict.whole |= dict.fromkeys(way.whole, at.reason)
        self.guessed |= {n: p for n, p in wholes.items() if n not in way.whole}
        return self.departure() if ties or wholes else found

    def _by_floors(self, at: Departure) -> tuple[_Way | None, Departure | None]:
        """One unit more than a dimension of one has, or than another group has."""
        kept = self.plan(self.groups, self.verdict.bonds()).widths
        for names in self.suspects.levels(at, self.verdict.whole):
            able = [n for n in names if kept[n] < self.groups[n].width - 1]
            ways = [_Way(floors=((n, kept[n] + 1),)) for n in able]
            if self.plan is equal_plan:
                ways = self._apart(able)
            if len(ways) > 4:
                ways = [_Way(floors=tuple(f for way in ways for f in way.floors))]
            way, found = self._best(at, ways)
            if way is not None:
                return way, found
        return None, None

    def _apart(self, names: Sequence[str]) -> list[_Way]:
        """Each of some groups held above the dense width of the next smaller one."""
        widths = sorted({self.groups[n].width for n in names})
        return [
            _Way(floors=tuple((n, low + 1) for n in names if self.groups[n].width == high))
            for low, high in pairwise(widths)
            if low + 1 < high
        ]

    def _by_integers(self, at: Departure) -> tuple[_Way | None, Departure | None]:
        """Integers of the module and of those around it that repeat a width."""
        near = [
            r
            for r in self.attributes.unsure
            if at.module == r.path or (r.path and at.module.startswith(f"{r.path}."))
        ]
        same = [
            [r for r in self.attributes.unsure if (r.kind, r.attribute) == key]
            for key in dict.fromkeys((r.kind, r.attribute) for r in reversed(near))
        ]
        every = _Way(tuple(r for alike in same for r in alike))
        ways = [every, *(_Way(tuple(alike)) for alike in same)] if len(same) > 1 else [every]
        return self._best(at, ways) if same else (None, None)

    def _by_edits(self, at: Departure) -> tuple[_Way | None, Departure | None]:
        """Sizes in the call that departs."""
        known = set(self.verdict.edits)
        ways = [e for e in self.attributes.sites.edits(at.index) if not known & set(e)]
        for edits in ways:
            way, found = self._best(at, [_Way(edits=edits)])
            if way is not None:
                return way, found
        return None, None

    def _by_ties(self, at: Departure) -> tuple[_Way | None, Departure | None]:
        """Groups of one width that a number of the module may count together."""
        levels = self.suspects.levels(at, self.verdict.whole)
        first = next(levels, [])
        for names in (first, next(levels, [])):
            sets = []
            for width in dict.fromkeys(self.groups[n].width for n in first):
                alike = tuple(n for n in names if self.groups[n].width == width)
                if len(alike) > 1 and alike not in self.verdict.ties:
                    sets.append(alike)
            way, found = self._best(at, [_Way(ties=tuple(sets))] if sets else [])
            if way is not None:
                return way, found
        return None, None

    def _by_wholes(self, at: Departure) -> tuple[_Way | None, Departure | None]:
        """As few groups as possible left whole."""
        for names in self.suspects.levels(at, self.verdict.whole):
            if len(names) <= 4:
                way, found = self._best(at, [_Way(whole=(n,)) for n in names])
                if way is not None:
                    return way, found
            if len(names) > 1:
                way, found = self._best(at, [_Way(whole=tuple(names))])
                if way is not None:
                    return self._fewer(at, names, found)
        return None, None

    def _best(self, at: Departure, ways: Sequence[_Way]) -> tuple[_Way | None, Departure | None]:
        """The way that moves a departure furthest, of equal ones with integers the last.

        The first of several ways with integers holds all of them: where it changes nothing, none
        of them does.
        """
        best: tuple[_Way | None, Departure | None] = (None, at)
        for way in ways:
            found = self.departure(way)
            if _reach(found) > _reach(best[1]) or (
                best[0] is not None and _reach(found) == _reach(best[1]) and way.repeats
            ):
                best = way, found
            if found is None and not way.repeats:
                break
            if way is ways[0] and way.repeats and _reach(found) == at.index:
                break
        return best

    def _fewer(
        self, at: Departure, names: Sequence[str], found: Departure | None
    ) -> tuple[_Way, Departure | None]:
        """Drop names that a departure moves on without."""
        for name in names if len(names) <= 12 else ():
            fewer = [n for n in names if n != name]
            shown = self.departure(_Way(whole=tuple(fewer)))
            if _reach(shown) > at.index:
                names, found = fewer, shown
        return _Way(whole=tuple(names)), found

    def _recheck(self) -> None:
        """Let groups shrink that were left whole for another's sake, where the network runs so.

        Groups of one width in modules with the same flags stand or fall together.
        """
        alike: dict[Any, list[str]] = {}
        for name, path in self.guessed.items():
            alike.setdefault(self._signature(path, name), []).append(name)
        for signature, names in list(alike.items())[:RECHECKS]:
            if signature in self.seen:
                continue
            bonds = self.verdict.bonds()
            whole = [n for n in self.verdict.whole if n not in names]
            if self._traced(Bonds(whole, bonds.ties, bonds.floors)) is None:
                for name in names:
                    del self.verdict.whole[name]

    def _signature(self, path: str, name: str) -> tuple[Any, ...]:
        module = self.groups.model.get_submodule(path)
        flags = [(n, v) for n, v in vars(module).items() if type(v) in (bool, str)]
        return type(module), self.groups[name].width, tuple(flags)

    def _values(self) -> None:
        """Leave groups whole whose removal changes values although every shape is right."""
        if self._is_meta():
            return
        names = [g.name for g in self.groups.prunable if g.name not in self.verdict.whole]
        for name in self._differing(names):
            self.verdict.whole[name] = "a trial without some of its units gave other values"

    def _differing(self, names: list[str]) -> list[str]:
        """As few of some groups as must be left whole for the values to agree."""
        if not names or self._agree(names):
            return []
        if len(names) == 1:
            return names
        half = len(names) // 2
        bad = [*self._differing(names[:half]), *self._differing(names[half:])]
        rest = [n for n in names if n not in bad]
        return bad if bad and self._agree(rest) else names

    def _is_meta(self) -> bool:
        return any(p.is_meta for p in self.groups.model.parameters())

    def _agree_all_the_same(self, names: Collection[str]) -> bool:
        if self.plan is not FIRST:
            return self._agreed(self.plan(self.groups, self.verdict.bonds()))
        return all(self._agree(names, seed) for seed in (1, 2))

    def _agree(self, names: Collection[str], seed: int = 1) -> bool:
        """Whether values agree where some groups alone shrink."""
        bonds = self.verdict.bonds()
        whole = [g.name for g in self.groups.prunable if g.name not in names]
        return self._agreed(uneven_plan(self.groups, Bonds(whole, bonds.ties, bonds.floors), seed))

    def _agreed(self, plan: Plan) -> bool:
        self.left -= 1
        if self.left < -MOST:
            return False
        try:
            return values_agree(self.groups, plan, self.slicer)
        except Exception as error:  # whatever a user's forward raises at another width
            logger.debug("a trial fails: %s: %s", type(error).__name__, error)
            return False


def _reach(found: Departure | None) -> float:
    return float("inf") if found is None else found.index
