"""Plans for trying a network out: every group shrinks, each to another fraction."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from rlprune.plan import Plan
from rlprune.structure.groups import Group, Groups

GOLDEN = 0.6180339887498949
"""Multiples of it, modulo one, are spread evenly: neighbouring groups get unlike fractions."""


def uneven_plan(
    groups: Groups,
    whole: Collection[str] = (),
    seed: int = 0,
    ties: Collection[Sequence[str]] = (),
) -> Plan:
    """Shrink every group that can shrink to between a third and three quarters of its width.

    Equal fractions would hide a width that is taken for another one: a quotient of two widths that
    shrink alike stays what it was. The kept units are drawn at random.

    Args:
        groups: of the network.
        whole: names of groups that keep all their units.
        seed: of the units; another seed also gives other fractions.
        ties: groups of one width, of which the same units are kept.
    """
    generator = np.random.default_rng(seed)
    keep = {}
    taken: dict[int, set[int]] = {}
    for k, group in enumerate(groups.prunable):
        width = group.width
        if group.name not in whole:
            fraction = 0.33 + 0.42 * ((k + 1 + 7 * seed) * GOLDEN % 1)
            width = _width(group, fraction, taken.setdefault(group.width, set()))
        units = np.sort(generator.permutation(group.width)[:width])
        keep[group.name] = tuple(units.tolist())
    for names in ties:
        kept = max((keep[n] for n in names), key=len)
        keep.update(dict.fromkeys(names, kept))
    return Plan(keep, {g.name: g.width for g in groups.prunable})


def _width(group: Group, fraction: float, taken: set[int]) -> int:
    """The legal width nearest to a fraction that no group of the same width has been given yet."""
    smaller = [w for w in group.legal_widths() if w < group.width]
    if not smaller:
        return group.width
    if taken.issuperset(smaller):
        taken.clear()
    width = min(set(smaller) - taken, key=lambda w: abs(w - group.width * fraction))
    taken.add(width)
    return width
