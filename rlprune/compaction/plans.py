"""Plans for trying a network out: what a forward may take for granted is different in each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rlprune.plan import Plan
from rlprune.structure.groups import Group, Groups

GOLDEN = 0.6180339887498949
"""Multiples of it, modulo one, are spread evenly: neighbouring groups get unlike fractions."""

WIDE = 8
"""Smaller groups are seldom channels: they do not say which width groups are made equal at."""


@dataclass(frozen=True)
class Bonds:
    """What plans must keep to.

    Attributes:
        whole: names of groups that keep all their units.
        ties: groups of one width, of which the same units are kept.
        floors: fewest units that groups may keep.
    """

    whole: Collection[str] = ()
    ties: Collection[Sequence[str]] = ()
    floors: Mapping[str, int] = field(default_factory=dict)

    def smaller(self, group: Group) -> list[int]:
        """Widths below the dense one that a group may take, ascending."""
        if group.name in self.whole:
            return []
        floor = self.floors.get(group.name, 1)
        return [w for w in group.legal_widths() if floor <= w < group.width]


FREE = Bonds()
Maker = Callable[[Groups, Bonds], Plan]


def uneven_plan(groups: Groups, bonds: Bonds = FREE, seed: int = 0) -> Plan:
    """Shrink every group that can shrink to between a third and three quarters of its width.

    Equal fractions would hide a width that is taken for another one: a quotient of two widths that
    shrink alike stays what it was. The kept units are drawn at random.

    Args:
        groups: of the network.
        bonds: what the plan must keep to.
        seed: of the units; another seed also gives other fractions.
    """
    widths = {}
    taken: dict[int, set[int]] = {}
    for k, group in enumerate(groups.prunable):
        fraction = 0.33 + 0.42 * ((k + 1 + 7 * seed) * GOLDEN % 1)
        among = taken.setdefault(group.width, set())
        widths[group.name] = _width(group, fraction, among, bonds.smaller(group))
    return _drawn(groups, bonds, widths, seed)


def narrow_plan(groups: Groups, bonds: Bonds = FREE, *, half: int) -> Plan:
    """Shrink every other group, at random, as far as it may shrink; the others keep all units.

    A dimension of one is not like any other, and of two groups that go together one shrinks alone.

    Args:
        groups: of the network.
        bonds: what the plan must keep to.
        half: 0 or 1; either shrinks what the other leaves alone.
    """
    drawn = np.random.default_rng(0).random(len(groups.prunable)) < 0.5
    kept = {g.name for g, one in zip(groups.prunable, drawn, strict=True) if one == bool(half)}
    for names in bonds.ties:
        kept.update(names if kept & set(names) else ())
    bonds = Bonds({*bonds.whole, *kept}, bonds.ties, bonds.floors)
    widths = {g.name: min(bonds.smaller(g), default=g.width) for g in groups.prunable}
    return _drawn(groups, bonds, widths, 3)


def equal_plan(groups: Groups, bonds: Bonds = FREE) -> Plan:
    """Shrink groups to one width as far as they can take it, which may be taken for sameness."""
    smaller = {g.name: bonds.smaller(g) for g in groups.prunable}
    able = [g.width for g in groups.prunable if smaller[g.name]] or [1]
    wanted = min((w for w in able if w >= WIDE), default=min(able)) / 2
    widths = {
        g.name: min(smaller[g.name] or [g.width], key=lambda w: abs(w - wanted))
        for g in groups.prunable
    }
    return _drawn(groups, bonds, widths, 4)


def _drawn(groups: Groups, bonds: Bonds, widths: Mapping[str, int], seed: int) -> Plan:
    """Units at random for some widths; tied groups take those of the widest."""
    generator = np.random.default_rng(seed)
    keep = {}
    for group in groups.prunable:
        units = np.sort(generator.permutation(group.width)[: widths[group.name]])
        keep[group.name] = tuple(units.tolist())
    for names in bonds.ties:
        if not set(names) & set(bonds.whole):
            kept = max((keep[n] for n in names), key=len)
            keep.update(dict.fromkeys(names, kept))
    return Plan(keep, {g.name: g.width for g in groups.prunable})


def _width(group: Group, fraction: float, taken: set[int], smaller: Sequence[int]) -> int:
    """The width nearest to a fraction that no group of the same width has been given yet."""
    if not smaller:
        return group.width
    if taken.issuperset(smaller):
        taken.clear()
    width = min(set(smaller) - taken, key=lambda w: abs(w - group.width * fraction))
    taken.add(width)
    return width
