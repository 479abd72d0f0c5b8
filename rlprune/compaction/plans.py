"""Plans for trying a network out: every group shrinks, each to another fraction."""

from __future__ import annotations

from collections.abc import Collection

import torch

from rlprune.plan import Plan
from rlprune.structure.groups import Group, Groups

GOLDEN = 0.6180339887498949
"""Multiples of it, modulo one, are spread evenly: neighbouring groups get unlike fractions."""


def uneven_plan(groups: Groups, whole: Collection[str] = (), seed: int = 0) -> Plan:
    """Shrink every group that can shrink to between a third and three quarters of its width.

    Equal fractions would hide a width that is taken for another one: a quotient of two widths that
    shrink alike stays what it was. The kept units are drawn at random.

    Args:
        groups: of the network.
        whole: names of groups that keep all their units.
        seed: of the units; another seed also gives other fractions.
    """
    generator = torch.Generator().manual_seed(seed)
    keep = {}
    for k, group in enumerate(groups.prunable):
        width = group.width
        if group.name not in whole:
            width = _width(group, 0.33 + 0.42 * ((k + 1 + 7 * seed) * GOLDEN % 1))
        units = torch.randperm(group.width, generator=generator)[:width].sort().values
        keep[group.name] = tuple(units.tolist())
    return Plan(keep, {g.name: g.width for g in groups.prunable})


def _width(group: Group, fraction: float) -> int:
    smaller = [w for w in group.legal_widths() if w < group.width]
    return min(smaller, key=lambda w: abs(w - group.width * fraction)) if smaller else group.width
