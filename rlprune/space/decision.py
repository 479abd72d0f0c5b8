"""One thing that a search chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import nn

from rlprune.errors import ConfigError
from rlprune.space.nearest import nearest
from rlprune.structure.limits import matches

if TYPE_CHECKING:
    from rlprune.structure import Group, Groups
    from rlprune.structure.records import Branch

Kind = Literal["width", "tie", "branch"]


@dataclass(frozen=True)
class Decision:
    """The width of a group, of several groups tied to one ratio, or whether a branch stays.

    Attributes:
        name: the group's, the tie's glob, the branch's, or the layer's.
        kind: ``width``, ``tie`` or ``branch``.
        size: the value at which nothing is removed: the dense width (of the tied group with the
            most legal widths), 1 for a branch.
        legal: its legal values, ascending: widths, or (0, 1) for a branch, 0 dropping it.
        columns: numbers of the prunable groups that it decides about, in execution order.
        widths: for every legal value the kept units of these groups; a branch that stays leaves
            them to the other decisions.
        branches: the branches that go together at 0; empty for a width or tie.
    """

    name: str
    kind: Kind
    size: int
    legal: tuple[int, ...]
    columns: tuple[int, ...]
    widths: tuple[tuple[int, ...], ...]
    branches: tuple[str, ...] = ()


LAYERS = "layers"
"""Depth that drops layers: all branches of one at once."""


def decisions(
    groups: Groups, tie: Sequence[str], depth: bool | str = False
) -> tuple[Decision, ...]:
    """All decisions of a network, in execution order; a branch comes before what lies inside.

    Args:
        groups: the network's groups.
        tie: globs, or several joined by ``|``; the groups that one of them matches share one ratio.
        depth: whether branches are decided on; ``"layers"``: all branches of a layer at once.

    Raises:
        ConfigError: a glob matches no prunable group, or two match the same.
    """
    prunable = groups.prunable
    column = {group.name: at for at, group in enumerate(prunable)}
    tied = _tied(prunable, tie)
    found: list[Decision] = []
    for at, group in enumerate(prunable):
        if group.name not in tied:
            legal = group.legal_widths()
            each = tuple((width,) for width in legal)
            found.append(Decision(group.name, "width", group.width, legal, (at,), each))
    for glob in dict.fromkeys(tied.values()):
        members = [group for group in prunable if tied.get(group.name) == glob]
        found.append(_tie(glob, members, [column[group.name] for group in members]))
    for name, branches in _droppable(groups, depth).items():
        inside = tuple(sorted(column[group] for b in branches for group in b.groups))
        empty = (0,) * len(inside)
        full = tuple(prunable[at].width for at in inside)
        together = tuple(branch.name for branch in branches)
        found.append(Decision(name, "branch", 1, (0, 1), inside, (empty, full), together))
    return tuple(sorted(found, key=lambda d: (d.columns[0], d.kind != "branch")))


def _droppable(groups: Groups, depth: bool | str) -> dict[str, list[Branch]]:
    """What a decision about depth drops, by its name."""
    if not depth:
        return {}
    if depth is True:
        return {name: [branch] for name, branch in groups.branches.items()}
    if depth != LAYERS:
        raise ConfigError(f"depth is {depth!r}; it must be true, false or {LAYERS!r}")
    found: dict[str, list[Branch]] = {}
    for branch in groups.branches.values():
        found.setdefault(layer_of(groups.model, branch.name), []).append(branch)
    return found


def layer_of(model: nn.Module, path: str) -> str:
    """The layer that a module lies in: the outermost item of a module list, or its own path."""
    parts = path.split(".")
    for end in range(1, len(parts) + 1):
        if isinstance(model.get_submodule(".".join(parts[: end - 1])), nn.ModuleList):
            return ".".join(parts[:end])
    numbered = [end for end, part in enumerate(parts, 1) if part.isdigit()]
    return ".".join(parts[: numbered[-1]]) if numbered else path


def _tied(prunable: Sequence[Group], tie: Sequence[str]) -> dict[str, str]:
    """Group name -> the glob that ties it."""
    found: dict[str, str] = {}
    for glob in [tie] if isinstance(tie, str) else tie:
        parts = glob.split("|")
        hit = [g.name for g in prunable if any(matches([g.name], part) for part in parts)]
        if not hit:
            names = ", ".join(group.name for group in prunable[:12])
            raise ConfigError(f"tie: the glob {glob!r} matches no prunable group; they are {names}")
        for name in hit:
            if name in found and found[name] != glob:
                raise ConfigError(
                    f"tie: {name!r} is matched by {found[name]!r} and by {glob!r}; tie it once"
                )
            found[name] = glob
    return found


def _tie(glob: str, members: Sequence[Group], columns: Sequence[int]) -> Decision:
    """Several groups at one ratio: that of the group with the most legal widths."""
    finest = max(members, key=lambda group: len(group.legal_widths()))
    legal = finest.legal_widths()
    choices = [group.legal_widths() for group in members]
    widths = tuple(
        tuple(
            nearest(own, value / finest.width * group.width)
            for own, group in zip(choices, members, strict=True)
        )
        for value in legal
    )
    return Decision(glob, "tie", finest.width, legal, tuple(columns), widths)
