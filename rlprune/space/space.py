"""All decisions of a network: from choices to plans and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rlprune.errors import PlanError
from rlprune.plan import Plan
from rlprune.space import describe
from rlprune.space.decision import Decision, decisions
from rlprune.space.nearest import NearestTable

if TYPE_CHECKING:
    from rlprune.structure import Groups

Choice = tuple[int, ...]
"""A legal value for every decision."""

KEPT = 0.5
"""A branch whose ratio is above this is kept; the nearest legal value, in other words."""


class Space:
    """The decisions of a network with their legal values.

    A *choice* holds one legal value per decision: kept units, or for a branch 1 (it stays) or 0
    (it is dropped). A *ratio* is a value over the decision's size. Within a group the units of
    highest importance are kept, so a choice is a plan; a plan that another producer made may keep
    any units, and its choice is the nearest there is.

    Args:
        groups: the network's groups.
        scores: importance of every prunable group's units, ``[width]`` each.
        tie: globs, or several joined by ``|``; the groups that one of them matches share one ratio.
        depth: whether a choice says which branches are dropped; finding them takes time.
            ``"layers"``: all branches of a layer go at once.

    Attributes:
        groups: as given.
        decisions: what is chosen, in execution order.
        sizes: ``[n]`` values at which nothing is removed.
        lowest: ``[n]`` smallest legal ratios.
        highest: ``[n]`` largest legal ratios.

    Raises:
        ConfigError: a tie's glob matches nothing, or what another one matches.
        PlanError: a score has the wrong shape or is NaN.
    """

    def __init__(
        self,
        groups: Groups,
        scores: Mapping[str, Tensor],
        *,
        tie: Sequence[str] = (),
        depth: bool | str = False,
    ) -> None:
        self.groups = groups
        self.scores = scores
        self.tie = (tie,) if isinstance(tie, str) else tuple(tie)
        self.depth = bool(depth)
        self.decisions: tuple[Decision, ...] = decisions(groups, tie, depth)
        self.sizes = np.array([d.size for d in self.decisions], dtype=np.int64)
        self.lowest = np.array([d.legal[0] for d in self.decisions]) / self.sizes
        self.highest = np.array([d.legal[-1] for d in self.decisions]) / self.sizes
        self.branches = np.array([d.kind == "branch" for d in self.decisions], dtype=bool)
        self._nearest = NearestTable([d.legal for d in self.decisions], self.sizes.tolist())
        self._dense = {group.name: group.width for group in groups.prunable}
        self._orders = [_order(scores, group.name, group.width) for group in groups.prunable]
        self._prefixes: list[dict[int, tuple[int, ...]]] = [{} for _ in self._orders]
        self._plain = all(d.kind == "width" for d in self.decisions)
        self._places = [{v: at for at, v in enumerate(d.legal)} for d in self.decisions]

    def __len__(self) -> int:
        return len(self.decisions)

    @cached_property
    def smallest(self) -> Choice:
        """The choice that keeps least."""
        return tuple(d.legal[0] for d in self.decisions)

    @cached_property
    def largest(self) -> Choice:
        """The choice that keeps most; the dense network unless bounds say otherwise."""
        return tuple(d.legal[-1] for d in self.decisions)

    @cached_property
    def inside(self) -> np.ndarray:
        """``[n]``: number of the branch that all groups of a decision lie in, -1 without one."""
        found = np.full(len(self), -1)
        for number in np.flatnonzero(self.branches).tolist():
            columns = set(self.decisions[number].columns)
            for at in np.flatnonzero(~self.branches).tolist():
                if columns.issuperset(self.decisions[at].columns):
                    found[at] = number
        return found

    @cached_property
    def features(self) -> np.ndarray:
        """``[n, len(FEATURES)]`` float32: see :func:`rlprune.space.describe.features`."""
        return describe.features(self)

    def nearest(self, ratios: np.ndarray) -> np.ndarray:
        """Legal values ``[..., n]`` nearest to ratios ``[..., n]``, the smaller on a tie."""
        return self._nearest(np.asarray(ratios, dtype=np.float64) * self.sizes)

    def nearest_values(self, wishes: np.ndarray) -> np.ndarray:
        """Legal values ``[..., n]`` nearest to unrounded values, the smaller on a tie."""
        return self._nearest(wishes)

    def choice(self, ratios: np.ndarray) -> Choice:
        """The choice nearest to ``[n]`` ratios."""
        return tuple(self.nearest(ratios).tolist())

    def widths(self, choices: np.ndarray) -> np.ndarray:
        """Kept units ``[..., groups]`` of choices ``[..., n]``."""
        choices = np.asarray(choices)
        if self._plain:
            return choices
        flat = choices.reshape(-1, len(self))
        out = np.zeros((len(flat), len(self._dense)), dtype=np.int64)
        for at, decision in enumerate(self.decisions):
            if decision.kind != "branch":
                table, legal = np.array(decision.widths), np.array(decision.legal)
                out[:, decision.columns] = table[np.searchsorted(legal, flat[:, at])]
        for at in np.flatnonzero(self.branches).tolist():
            gone = np.flatnonzero(flat[:, at] == 0)
            out[np.ix_(gone, np.array(self.decisions[at].columns))] = 0
        return out.reshape(*choices.shape[:-1], -1)

    def counts(self, choice: Choice) -> Sequence[int]:
        """Kept units by prunable group of one choice."""
        if self._plain:
            return choice
        found: list[int] = self.widths(np.asarray(choice)).tolist()
        return found

    def stretched(self, ratios: np.ndarray) -> np.ndarray:
        """Unrounded widths ``[P, groups]`` of ratios ``[P, n]``; 0 inside dropped branches."""
        if self._plain:
            return ratios * self.sizes
        dense = np.array(list(self._dense.values()), dtype=np.float64)
        out = np.zeros((len(ratios), len(dense)))
        for at, decision in enumerate(self.decisions):
            if decision.kind != "branch":
                columns = list(decision.columns)
                out[:, columns] = ratios[:, at, None] * dense[columns]
        for at in np.flatnonzero(self.branches).tolist():
            gone = np.flatnonzero(ratios[:, at] <= KEPT)
            out[np.ix_(gone, np.array(self.decisions[at].columns))] = 0.0
        return out

    def plan(self, choice: Sequence[int]) -> Plan:
        """The plan that a choice stands for.

        Raises:
            PlanError: a value is not legal; names the decision.
        """
        self._legal(choice)
        widths = self.widths(np.asarray(choice)).tolist()
        keep = {
            name: self._prefix(column, width)
            for column, (name, width) in enumerate(zip(self._dense, widths, strict=True))
        }
        return Plan(keep, self._dense)

    def ratios(self, plan: Plan) -> np.ndarray:
        """``[n]`` keep ratios of a plan, whatever units it keeps.

        A tie has the one at which its groups come nearest. What lies in a dropped branch has its
        smallest.
        """
        self.check(plan)
        kept = np.array([len(units) for units in plan.keep.values()], dtype=np.float64)
        dense = np.array(list(self._dense.values()), dtype=np.float64)
        out = np.empty(len(self))
        for at, decision in enumerate(self.decisions):
            columns = list(decision.columns)
            if decision.kind == "branch":
                out[at] = float(kept[columns[0]] > 0)
            elif decision.kind == "width":
                out[at] = kept[columns[0]] / dense[columns[0]]
            else:
                there = kept[columns] > 0
                apart = np.abs(np.array(decision.widths) - kept[columns]) / dense[columns]
                best = int((apart * there).sum(axis=1).argmin())
                out[at] = decision.legal[best] / decision.size
        return np.clip(out, self.lowest, self.highest)

    def adjusted(self, plan: Plan, choice: Choice) -> Plan:
        """A plan brought to a choice with as few of its own units changed as can be.

        Groups that keep too many lose their least important ones, others gain the most important
        they lack.

        Args:
            plan: any plan of this network.
            choice: how much it shall keep.
        """
        self._legal(choice)
        keep = {}
        for order, (name, units), width in zip(
            self._orders, plan.keep.items(), self.counts(choice), strict=True
        ):
            own = set(units)
            ranked = sorted(order, key=lambda unit: unit not in own)
            keep[name] = tuple(sorted(ranked[:width]))
        return Plan(keep, self._dense)

    def check(self, plan: Plan) -> None:
        """Make sure that a plan fits the network and the legal widths.

        It may keep any units of a group, and drop any branch.

        Raises:
            PlanError: names the group that is unknown, or of which no legal number is kept.
        """
        if plan.dense != self._dense:
            other = next((n for n in plan.dense if n not in self._dense), None)
            missing = next((n for n in self._dense if n not in plan.dense), None)
            raise PlanError(
                f"the plan is for another network: it has {len(plan.dense)} groups, this network "
                f"{len(self._dense)} prunable ones"
                + (f"; {other!r} is none of them" if other is not None else "")
                + (f"; it does not say what is kept of {missing!r}" if missing is not None else "")
            )
        for group, units in zip(self.groups.prunable, plan.keep.values(), strict=True):
            if len(units) not in self._widths[group.name] and units:
                low, high = group.legal_widths()[0], group.legal_widths()[-1]
                raise PlanError(
                    f"group {group.name!r}: width {len(units)} is not legal; choose from {low} to "
                    f"{high} in steps of {group.divisor}"
                )
        if not all(plan.keep.values()):
            plan.check(self.groups)

    def curves(self, by_group: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """What depends on every group's kept units, by the decisions' values.

        Args:
            by_group: ``[width + 1]`` for every prunable group.

        Returns:
            ``[size + 1]`` for every decision: the sum over its groups.
        """
        out = []
        for decision in self.decisions:
            if decision.kind == "width":
                out.append(by_group[decision.columns[0]])
                continue
            known = np.array(
                [
                    sum(by_group[c][w] for c, w in zip(decision.columns, row, strict=True))
                    for row in decision.widths
                ]
            )
            out.append(np.interp(np.arange(decision.size + 1), decision.legal, known))
        return tuple(out)

    @cached_property
    def _widths(self) -> dict[str, frozenset[int]]:
        return {group.name: frozenset(group.legal_widths()) for group in self.groups.prunable}

    def _legal(self, choice: Sequence[int]) -> None:
        if len(choice) != len(self):
            raise PlanError(f"{len(choice)} values given for {len(self)} decisions")
        for value, known, decision in zip(choice, self._places, self.decisions, strict=True):
            if value not in known:
                low, high = decision.legal[0], decision.legal[-1]
                raise PlanError(
                    f"decision {decision.name!r}: the value {value} is not legal; choose one of "
                    f"its {len(decision.legal)} values from {low} to {high}"
                )

    def _prefix(self, column: int, width: int) -> tuple[int, ...]:
        known = self._prefixes[column]
        if width not in known:
            known[width] = tuple(sorted(self._orders[column][:width]))
        return known[width]


def _order(scores: Mapping[str, Tensor], name: str, width: int) -> list[int]:
    """Units of a group, the most important first."""
    if name not in scores:
        raise PlanError(f"no importance scores for group '{name}'")
    score = scores[name]
    if tuple(score.shape) != (width,):
        raise PlanError(f"group '{name}': scores have shape {tuple(score.shape)}, need ({width},)")
    if bool(torch.isnan(score).any()):
        raise PlanError(f"group '{name}': some scores are not numbers (NaN)")
    order: list[int] = torch.argsort(score.float(), descending=True, stable=True).tolist()
    return order
