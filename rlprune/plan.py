"""Plans: for every prunable group, which units are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlprune.errors import PlanError

if TYPE_CHECKING:
    from rlprune.structure.groups import Group, Groups

FORMAT = 1
FILE = "plan.json"
"""Where the folder of a run holds its plan."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Which units every prunable group keeps; independent of weights, hashable, JSON.

    A group of a residual branch (`Groups.branch_of`) may keep nothing, if all groups of its branch
    do: the branch then adds zero, and the compacted network does not run it. The masked network is
    the dense one with the weights that decide about the branch's result set to zero.

    Attributes:
        keep: kept unit indices by group, sorted.
        dense: the groups' dense widths.
        vocabulary: ids of the tokens that stay, in the order of their new ids; empty for all.
    """

    keep: dict[str, tuple[int, ...]]
    dense: dict[str, int]
    vocabulary: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if list(self.keep) != list(self.dense):
            raise PlanError("a plan needs the kept units and the dense width of the same groups")
        if len(set(self.vocabulary)) < len(self.vocabulary) or min(self.vocabulary, default=0) < 0:
            raise PlanError("vocabulary: ids of tokens must be distinct and at least 0")
        for name, units in self.keep.items():
            if list(units) != sorted(set(units)):
                raise PlanError(f"group '{name}': kept units must be sorted and distinct")
            if units and (units[0] < 0 or units[-1] >= self.dense[name]):
                raise PlanError(
                    f"group '{name}': kept unit {units[-1] if units[0] >= 0 else units[0]} is "
                    f"outside 0..{self.dense[name] - 1}"
                )

    @cached_property
    def widths(self) -> dict[str, int]:
        """Number of kept units by group."""
        return {n: len(u) for n, u in self.keep.items()}

    @cached_property
    def ratios(self) -> dict[str, float]:
        """Keep ratio by group, in [0, 1]."""
        return {n: len(u) / self.dense[n] for n, u in self.keep.items()}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the plan's JSON, the same on every machine."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(self.keep.values()))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Plan)
            and self.keep == other.keep
            and self.dense == other.dense
            and self.vocabulary == other.vocabulary
        )

    def masks(self) -> dict[str, Tensor]:
        """The plan as one boolean tensor over units for each group, [dense width]."""
        out = {}
        for name, units in self.keep.items():
            mask = torch.zeros(self.dense[name], dtype=torch.bool)
            mask[list(units)] = True
            out[name] = mask
        return out

    def to_json(self) -> str:
        """The plan as JSON text with a fixed order."""
        groups = {
            n: {"width": self.dense[n], "keep": list(units)} for n, units in self.keep.items()
        }
        content: dict[str, Any] = {"format": FORMAT, "groups": groups}
        if self.vocabulary:
            content["vocabulary"] = list(self.vocabulary)
        return json.dumps(content, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Plan:
        """Read a plan back.

        Raises:
            PlanError: the text is not a plan; says what is wrong.
        """
        try:
            data = json.loads(text)
            if data["format"] != FORMAT:
                raise PlanError(f"plan format {data['format']}; this version reads {FORMAT}")
            groups: dict[str, Any] = data["groups"]
            keep = {n: tuple(int(u) for u in g["keep"]) for n, g in groups.items()}
            dense = {n: int(g["width"]) for n, g in groups.items()}
            vocabulary = tuple(int(at) for at in data.get("vocabulary", ()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, PlanError):
                raise
            raise PlanError(
                f"not a plan: {type(error).__name__}: {error}; expected "
                '{"format": 1, "groups": {name: {"width": n, "keep": [..]}}}'
            ) from error
        return Plan(keep, dense, vocabulary)

    @staticmethod
    def read(path: str | Path) -> Plan:
        """The plan in a file, or of the folder of a run.

        Raises:
            PlanError: there is no plan to read; says where it was looked for.
        """
        file = Path(path).expanduser()
        file = file / FILE if file.is_dir() else file
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise PlanError(
                f"cannot read a plan from {file}: {error}; give a plan's JSON file or the folder "
                "of a run"
            ) from error
        return Plan.from_json(text)

    @staticmethod
    def uniform(groups: Groups, keep: float = 0.5, importance: Any = "l1") -> Plan:
        """Keep the same fraction of every group.

        Args:
            groups: from `rlprune.discover`.
            keep: keep ratio in (0, 1]; rounded to the nearest legal width of each group.
            importance: criterion (name or callable), or scores by group, [width] each.
        """
        if not 0 < keep <= 1:
            raise PlanError(f"keep is {keep}; it must be in (0, 1]")
        widths = [nearest_legal(g, keep * g.width) for g in groups.prunable]
        return Plan.from_widths(groups, widths, importance)

    @staticmethod
    def from_widths(
        groups: Groups, widths: Sequence[int] | Mapping[str, int], importance: Any = "l1"
    ) -> Plan:
        """Keep the most important units of every group.

        Args:
            groups: from `rlprune.discover`.
            widths: kept units, in the order of ``groups.prunable`` or by name (others stay dense).
                0 drops a residual branch, if it is given for all groups of the branch.
            importance: criterion (name or callable), or scores by group, [width] each.

        Raises:
            PlanError: a width is outside 1..dense (0..dense where it lies in a branch), a branch
                is emptied in part, a group is unknown or frozen, or a score is NaN.
        """
        if isinstance(widths, Mapping):
            for name in widths:
                if not groups[name].prunable:
                    raise PlanError(f"group '{name}' is not prunable: {groups[name].reason}")
            sizes = [int(widths.get(g.name, g.width)) for g in groups.prunable]
        else:
            if len(widths) != len(groups.prunable):
                raise PlanError(
                    f"{len(widths)} widths given for {len(groups.prunable)} prunable groups"
                )
            sizes = [int(w) for w in widths]
        scores = _scores(groups, importance)
        keep = {}
        for group, size in zip(groups.prunable, sizes, strict=True):
            least = 0 if size == 0 and groups.branch_of(group.name) else 1
            if not least <= size <= group.width:
                raise PlanError(
                    f"group '{group.name}': width {size} is not in {least}..{group.width}"
                )
            score = scores[group.name]
            if tuple(score.shape) != (group.width,):
                raise PlanError(
                    f"group '{group.name}': scores have shape {tuple(score.shape)}, "
                    f"need ({group.width},)"
                )
            if bool(torch.isnan(score).any()):
                raise PlanError(f"group '{group.name}': some scores are not numbers (NaN)")
            order = torch.argsort(score.float(), descending=True, stable=True)
            keep[group.name] = tuple(sorted(order[:size].tolist()))
        plan = Plan(keep, {g.name: g.width for g in groups.prunable})
        groups.dropped(plan.widths)
        return plan

    @staticmethod
    def dense_plan(groups: Groups) -> Plan:
        """The plan that removes nothing."""
        keep = {g.name: tuple(range(g.width)) for g in groups.prunable}
        return Plan(keep, {g.name: g.width for g in groups.prunable})

    def drop(self, groups: Groups, branches: Iterable[str]) -> Plan:
        """This plan with some residual branches dropped: their groups keep nothing.

        Args:
            groups: from `rlprune.discover`.
            branches: names of branches, keys of ``groups.branches``.

        Raises:
            PlanError: the network has no such branch that could be dropped.
        """
        keep = dict(self.keep)
        for name in [branches] if isinstance(branches, str) else branches:
            if name not in groups.branches:
                known = ", ".join(groups.branches) or "none"
                raise PlanError(f"no branch '{name}' can be dropped; those that can: {known}")
            keep.update({group: () for group in groups.branches[name].groups if group in keep})
        return Plan(keep, self.dense, self.vocabulary)

    def check(self, groups: Groups) -> None:
        """Make sure the plan fits a network.

        Raises:
            PlanError: names the group that is unknown, frozen, of another width or empty though it
                may not be.
        """
        for name, width in self.dense.items():
            group = groups[name]
            if group.width != width:
                raise PlanError(
                    f"group '{name}' has {group.width} units in this network, {width} in the plan"
                )
            if not group.prunable and len(self.keep[name]) < width:
                raise PlanError(f"group '{name}' is not prunable: {group.reason}")
            if not self.keep[name] and not groups.branch_of(name):
                raise PlanError(
                    f"group '{name}': no unit is kept; keep at least one (the network needs it: it "
                    "does not lie in a residual branch that could be dropped)"
                )
        groups.dropped(self.widths)

    def __repr__(self) -> str:
        kept, total = sum(self.widths.values()), sum(self.dense.values())
        return f"Plan({len(self.keep)} groups, {kept} of {total} units kept, {self.digest[:8]})"


def nearest_legal(group: Group, width: float) -> int:
    """The legal width of a group closest to a real-valued one (the smaller on a tie)."""
    return min(group.legal_widths(), key=lambda w: (abs(w - width), w))


def _scores(groups: Groups, importance: Any) -> Mapping[str, Tensor]:
    if isinstance(importance, Mapping):
        missing = [g.name for g in groups.prunable if g.name not in importance]
        if missing:
            raise PlanError(f"no importance scores for group '{missing[0]}'")
        return importance
    from rlprune.importance import scores

    return scores(groups, importance)
