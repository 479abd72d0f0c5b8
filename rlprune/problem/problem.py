"""From widths to quality and costs: cached, counted, replayable."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from rlprune.batches import as_batches
from rlprune.budgets import Limit, ResolvedBudget
from rlprune.compaction import Workspace
from rlprune.compensation import Context, methods
from rlprune.errors import BudgetError, PlanError
from rlprune.plan import Plan
from rlprune.problem import describe, feasibility
from rlprune.problem.evaluation import Evaluation
from rlprune.problem.quality import Quality, checked
from rlprune.problem.store import Store

if TYPE_CHECKING:
    from rlprune.structure import Group, Groups

logger = logging.getLogger(__name__)

Widths = tuple[int, ...]

_PARTS = ("build", "compensate", "forward", "cost")


class Problem:
    """The problem a search works on: which widths cost what and are worth what.

    Args:
        groups: The network's groups.
        budgets: Budgets bound to the network.
        quality: Scores a candidate, higher is better.
        scores: Importance of every prunable group's units, ``[width]`` each; decides which units
            a width keeps.
        rescore: Scores finalists on more data; ``quality`` when None.
        compensation: Methods applied to every candidate before it is scored.
        calibration: Calibration data for them.
        store: A JSONL file that results are appended to as they come. A search that starts again
            with the same seed replays from it and ends as if it had never been interrupted.
        open_limits: Names of budgets whose limits the store is not bound to, because it serves
            several of them (see :meth:`at`).
        sensitivity: Computes what :attr:`sensitivity` holds, when it is first asked for.

    Attributes:
        groups: As given.
        decisions: The prunable groups, in execution order.
        budgets: As given; measured ones carry the reference values of the store.
        ledger: Unique evaluations in the order of their first request.

    Raises:
        BudgetError: There is nothing to prune, or no budget.
        InfeasibleBudgetError: Even the smallest network breaks a budget.
        CheckpointError: The store belongs to another problem.
    """

    def __init__(
        self,
        groups: Groups,
        budgets: Sequence[ResolvedBudget],
        quality: Quality,
        scores: Mapping[str, Tensor],
        *,
        rescore: Quality | None = None,
        compensation: Any = None,
        calibration: Any = None,
        store: Path | str | None = None,
        open_limits: Collection[str] = (),
        sensitivity: Callable[[], Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        if not groups.prunable:
            raise BudgetError("no group of the network can be pruned; see groups.table()")
        if not budgets:
            raise BudgetError("no budget given")
        self.groups = groups
        self.decisions: tuple[Group, ...] = groups.prunable
        self.budgets = tuple(budgets)
        self.ledger: list[Evaluation] = []
        self._quality = quality
        self._rescore = rescore or quality
        self._scores = scores
        self._methods = methods(compensation)
        self._calibration = as_batches(calibration)
        self._workspace = Workspace(groups)
        self._open_limits = frozenset(open_limits)
        self._sensitivity = sensitivity
        self._seconds = dict.fromkeys(_PARTS, 0.0)
        self._hits = 0
        self._replayed = 0
        self._seen: dict[Widths, Evaluation] = {}
        self._store = Store(
            None if store is None else Path(store), self._causes(), self._reference()
        )
        self.budgets = tuple(
            budget.restored(**self._store.reference[budget.name]) for budget in self.budgets
        )
        try:
            self._check_estimates()
            feasibility.check(self)
        except BaseException:
            self.close()
            raise

    @cached_property
    def legal(self) -> tuple[Widths, ...]:
        """The widths each decision may choose, ascending."""
        return tuple(group.legal_widths() for group in self.decisions)

    @cached_property
    def min_widths(self) -> Widths:
        """The smallest network."""
        return tuple(choices[0] for choices in self.legal)

    @cached_property
    def max_widths(self) -> Widths:
        """The largest network a plan may choose; the dense one unless bounds say otherwise."""
        return tuple(choices[-1] for choices in self.legal)

    @cached_property
    def _choices(self) -> tuple[frozenset[int], ...]:
        return tuple(frozenset(choices) for choices in self.legal)

    def plan(self, widths: Sequence[int]) -> Plan:
        """The plan that keeps the most important units at these widths."""
        return Plan.from_widths(self.groups, self._legal(widths), self._scores)

    def costs(self, widths: Sequence[int]) -> dict[str, float]:
        """Budget values of the candidate with these widths; not counted in the ledger.

        Exact structural estimates where there are any, otherwise the budget's function on the
        compacted candidate, remembered.

        Args:
            widths: Kept units per decision.

        Returns:
            Budget name -> value, in the order of ``budgets``.

        Raises:
            BudgetError: A budget's function fails; names it and the candidate.
            PlanError: A width is not legal.
        """
        key = self._legal(widths)
        known = self._store.get("costs", key) if self._black_boxes else {}
        if known is None:
            known = self._run_black_boxes(key)
            self._store.put("costs", key, known)
        return {
            budget.name: known[budget.name] if budget.estimate is None else budget.estimate(key)
            for budget in self.budgets
        }

    def violations(self, widths: Sequence[int]) -> dict[str, float]:
        """Budget name -> ``value / limit - 1`` of the candidate with these widths."""
        costs = self.costs(widths)
        return {budget.name: budget.violation(costs[budget.name]) for budget in self.budgets}

    def evaluate(self, widths: Sequence[int]) -> Evaluation:
        """Score a candidate; every distinct one counts once in the ledger.

        Args:
            widths: Kept units per decision.

        Returns:
            The evaluation; ``cached`` tells whether this search had asked before.

        Raises:
            ScoreError: The score raised or is not finite.
            BudgetError: A budget's function fails.
            PlanError: A width is not legal.
        """
        key = self._legal(widths)
        if key in self._seen:
            self._hits += 1
            return self._seen[key].again()
        costs = self.costs(key)
        stored = self._store.get("evaluation", key)
        if stored is None:
            start = time.perf_counter()
            quality = self._score(key, self._quality)
            stored = {"quality": quality, "seconds": time.perf_counter() - start}
            self._store.put("evaluation", key, {**stored, "costs": costs})
        else:
            self._replayed += 1
        evaluation = Evaluation(
            index=len(self.ledger),
            widths=key,
            quality=float(stored["quality"]),
            costs=costs,
            violations={b.name: b.violation(costs[b.name]) for b in self.budgets},
            seconds=float(stored["seconds"]),
        )
        self._seen[key] = evaluation
        self.ledger.append(evaluation)
        return evaluation

    def rescore(self, widths: Sequence[int]) -> float:
        """Quality on the larger held-out set, for finalists; not counted in the ledger."""
        key = self._legal(widths)
        value = self._store.get("rescore", key)
        if value is None:
            value = self._score(key, self._rescore)
            self._store.put("rescore", key, value)
        return float(value)

    def candidate(self, widths: Sequence[int]) -> nn.Module:
        """The compacted network at these widths, in eval mode, valid until the next call."""
        with self._timed("build"):
            return self._workspace.build(self.plan(widths))

    @cached_property
    def cost_shares(self) -> np.ndarray:
        """``[decisions, budgets]``: share of a budget's dense value one group alone can save.

        The relative drop of the cost when the group goes to its minimum width and every other
        group stays at its maximum.
        """
        return describe.cost_shares(self)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What the columns of ``features`` are."""
        return describe.FEATURES

    @cached_property
    def features(self) -> np.ndarray:
        """``[decisions, features]``: static description of the groups, about [-1, 1]."""
        return describe.features(self, self._scores)

    @cached_property
    def sensitivity(self) -> tuple[np.ndarray, ...] | None:
        """Predicted damage of every decision by kept units, ``[width + 1]`` each.

        None where there is no calibration data to predict from, or it cannot be done on this
        network. No evaluation is spent. See :func:`rlprune.sensitivity.sensitivity`.
        """
        if self._sensitivity is None:
            return None
        start = time.perf_counter()
        try:
            curves = self._sensitivity()
        except (RuntimeError, TypeError, ValueError) as error:
            logger.warning("no sensitivity curves for this network: %s", error)
            return None
        logger.info("sensitivity curves, %.1f s", time.perf_counter() - start)
        return tuple(curves[group.name] for group in self.decisions)

    @property
    def qualities(self) -> dict[Widths, float]:
        """Quality by widths of every candidate ever scored, by this search or another one."""
        stored = self._store.all("evaluation")
        return {widths: float(result["quality"]) for widths, result in stored.items()}

    @property
    def stats(self) -> dict[str, Any]:
        """Unique evaluations, cache hits, replayed results, and seconds by part."""
        return {
            "unique": len(self.ledger),
            "cache_hits": self._hits,
            "replayed": self._replayed,
            "seconds": dict(self._seconds),
        }

    def at(self, limits: Mapping[str, float | str | Limit]) -> Problem:
        """The same problem under other limits, with a ledger of its own.

        What is known of a candidate does not depend on a limit: results, store and network are
        shared, and closing one closes all.

        Args:
            limits: Budget name -> limit, written as in :class:`rlprune.Budget`; budgets that are
                not named keep theirs.

        Raises:
            BudgetError: A name is unknown, or a limit is unusable.
            InfeasibleBudgetError: Even the smallest network breaks a budget.
        """
        names = [budget.name for budget in self.budgets]
        unknown = [name for name in limits if name not in names]
        if unknown:
            raise BudgetError(
                f"the problem has no budget {unknown[0]!r}; its budgets are {', '.join(names)}"
            )
        other = copy.copy(self)
        other.budgets = tuple(b.at(limits[b.name]) if b.name in limits else b for b in self.budgets)
        other.__dict__.pop("_black_boxes", None)
        other._seconds = dict.fromkeys(_PARTS, 0.0)
        other.restart()
        feasibility.check(other)
        return other

    def restart(self) -> None:
        """Begin another search on the same problem: an empty ledger, results kept."""
        self.ledger = []
        self._seen = {}
        self._hits = self._replayed = 0

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    @cached_property
    def _black_boxes(self) -> tuple[ResolvedBudget, ...]:
        return tuple(budget for budget in self.budgets if budget.estimate is None)

    def _legal(self, widths: Sequence[int]) -> Widths:
        key = tuple(int(width) for width in widths)
        if len(key) != len(self.decisions):
            raise PlanError(f"{len(key)} widths given for {len(self.decisions)} prunable groups")
        for width, choices, group in zip(key, self._choices, self.decisions, strict=True):
            if width not in choices:
                low, high = group.legal_widths()[0], group.legal_widths()[-1]
                raise PlanError(
                    f"group {group.name!r}: width {width} is not legal; choose from {low} to "
                    f"{high} in steps of {group.divisor}"
                )
        return key

    def _score(self, key: Widths, quality: Quality) -> float:
        plan = self.plan(key)
        with self._timed("build"):
            candidate = self._workspace.build(plan)
        with self._timed("compensate"):
            context = Context(self.groups, plan, candidate, self._calibration)
            for method in self._methods:
                method.apply(context)
        with self._timed("forward"):
            return checked(quality, candidate, key)

    def _run_black_boxes(self, key: Widths) -> dict[str, float]:
        candidate = self.candidate(key)
        with self._timed("cost"):
            return {
                budget.name: budget.value(candidate, self.groups.example_inputs, key)
                for budget in self._black_boxes
            }

    def _check_estimates(self) -> None:
        """Hold every estimate against the real candidate once, at the smallest widths."""
        candidate = self.candidate(self.min_widths)
        for budget in self.budgets:
            if budget.estimate is None:
                continue
            real = budget.value(candidate, self.groups.example_inputs, self.min_widths)
            guess = budget.estimate(self.min_widths)
            if abs(real - guess) > 1e-6 * max(abs(real), 1.0):
                raise BudgetError(
                    f"budget {budget.name!r}: the structural estimate {guess:g} differs from the "
                    f"candidate's value {real:g} at the minimum widths; please report this network"
                )

    def _causes(self) -> dict[str, Any]:
        """What stored results depend on, by name."""
        return {
            "network": self.groups.model,
            "groups or widths": [(group.name, group.legal_widths()) for group in self.decisions],
            "budgets": [
                (b.name, "any" if b.name in self._open_limits else b.spec, b) for b in self.budgets
            ],
            "quality": self._quality,
            "rescoring": self._rescore,
            "importance": self._scores,
            "compensation": self._methods,
            "calibration": self._calibration,
        }

    def _reference(self) -> dict[str, dict[str, float]]:
        return {b.name: {"limit": b.limit, "dense": b.dense} for b in self.budgets}

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[part] += time.perf_counter() - start
