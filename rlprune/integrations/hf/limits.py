"""Which decisions about a network a stock configuration of transformers can say.

No table says it: smaller networks are tried. Groups of the same place in different layers share
one width where the configuration has one number for them; where it has one number for several
places, these share it too; where it has none, they stay whole.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

import torch

from rlprune.compaction import build
from rlprune.errors import PlanError, StructureError
from rlprune.export import Limited
from rlprune.integrations.hf.architecture import dense_class
from rlprune.integrations.hf.expression import express
from rlprune.plan import Plan
from rlprune.space.decision import LAYERS, layer_of
from rlprune.structure import Group, Groups

NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


def stock_limits(groups: Groups, depth: bool | str = False) -> Limited:
    """What a stock configuration can say of a network's decisions.

    Args:
        groups: of a network of transformers.
        depth: whether branches may be dropped.

    Raises:
        ConfigError: it is no network of transformers.
    """
    kind = dense_class(groups.model).__name__
    trial = _Trial(groups)
    tied: list[tuple[str, tuple[Group, ...], int]] = []
    left: list[tuple[str, tuple[Group, ...]]] = []
    for glob, members in places(groups.prunable).items():
        step = trial.step(members)
        if step:
            tied.append((glob, members, step))
        else:
            left.append((glob, members))
    for count in range(2, 4):
        for several in itertools.combinations(left, count):
            members = tuple(group for _, part in several for group in part)
            alike = len({(group.kind, group.width) for group in members}) == 1
            step = trial.step(members) if alike and all(x in left for x in several) else 0
            if step:
                tied.append(("|".join(glob for glob, _ in several), members, step))
                left = [place for place in left if place not in several]
    told = [
        f"{len(members)} groups {glob} share one width"
        + (f", a multiple of {step}" if step > 1 else "")
        for glob, members, step in tied
        if len(members) > 1
    ]
    told += [
        f"{glob} ({members[0].kind}) stays whole: no configuration of {kind} says its width alone"
        for glob, members in left
    ]
    allowed: bool | str = False
    if depth and trial.layers():
        allowed = LAYERS
        told += [f"whole layers may go, single branches stay: {kind} counts layers"]
    elif depth:
        told += [f"no branch may go: no configuration of {kind} says which layers have one"]
    return Limited(
        tie=tuple(glob for glob, members, _ in tied if len(members) > 1),
        round_to={
            group.name: step * per_unit(groups, group)
            for _, members, step in tied
            if step > 1
            for group in members
        },
        exclude=tuple(group.name for _, members in left for group in members),
        depth=allowed,
        told=tuple(told),
    )


def places(prunable: Iterable[Group]) -> dict[str, tuple[Group, ...]]:
    """Groups of the same place in different layers, by a glob that matches them."""
    found: dict[tuple[str, str, int], list[Group]] = {}
    for group in prunable:
        glob = NUMBER.sub("*", group.name)
        found.setdefault((glob, group.kind, group.width), []).append(group)
    globs = [glob for glob, *_ in found]
    return {
        glob if globs.count(glob) == 1 else "|".join(g.name for g in members): tuple(members)
        for (glob, *_), members in found.items()
    }


def per_unit(groups: Groups, group: Group) -> int:
    """Channels of one unit where it is produced."""
    out = [part for part in groups.slices(group) if part.role == "out"]
    return int(out[0].index.shape[1]) if out else 1


class _Trial:
    """Tries what a configuration can say by building smaller networks."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._zeros = {group.name: torch.zeros(group.width) for group in groups.prunable}
        self._settled: dict[str, int] = {}

    def step(self, members: Sequence[Group]) -> int:
        """The smallest number of which every multiple can be the members' width; 0 for none.

        Numbers are tried at their smallest, middle and largest multiple below the dense width,
        together with what was found before.
        """
        legal = members[0].legal_widths()
        for step in _steps(members[0].width):
            widths = [w for w in legal if w % step == 0 and w < members[0].width]
            if not widths:
                break
            tried = dict.fromkeys((widths[len(widths) // 2], widths[0], widths[-1]))
            said = [self._says({group.name: width for group in members}) for width in tried]
            if all(said):
                self._settled.update({group.name: widths[len(widths) // 2] for group in members})
                return step
            if not any(said):
                break  # a coarser one would not help
        return 0

    def layers(self) -> bool:
        """Whether a network without one of its layers can be said."""
        branches = self._groups.branches
        stacks: dict[str, dict[str, list[str]]] = {}
        for name in branches:
            layer = layer_of(self._groups.model, name)
            stacks.setdefault(layer.rpartition(".")[0], {}).setdefault(layer, []).append(name)
        if not stacks:
            return False
        plan = Plan.from_widths(self._groups, {}, self._zeros)
        for layers in stacks.values():
            first = next(iter(layers.values()))
            if not self._expressed(plan.drop(self._groups, first)):
                return False
        return True

    def _says(self, widths: dict[str, int]) -> bool:
        return self._expressed(
            Plan.from_widths(self._groups, {**self._settled, **widths}, self._zeros)
        )

    def _expressed(self, plan: Plan) -> bool:
        try:
            small = build(self._groups, plan, share=True)
            return not express(small).residue
        except (PlanError, StructureError):
            return False


def _steps(width: int) -> list[int]:
    return [step for step in range(1, width // 2 + 1) if width % step == 0]
