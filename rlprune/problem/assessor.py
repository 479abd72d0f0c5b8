"""Where candidates are built and measured: one network, one workspace, in any process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from rlprune.budgets import ResolvedBudget
from rlprune.compaction import Workspace
from rlprune.compensation import Context, methods, recalibrate
from rlprune.compensation.statistics import batch_norms
from rlprune.memory import peak_memory
from rlprune.problem.quality import Quality, checked

if TYPE_CHECKING:
    from rlprune.plan import Plan
    from rlprune.structure import Groups

PARTS = ("build", "compensate", "forward", "cost")
"""What the seconds of a problem are divided into."""

Score = Literal["quality", "rescore"]


@dataclass(frozen=True)
class Request:
    """What is asked of one plan.

    Attributes:
        plan: the plan.
        score: which score is wanted, if any.
        budgets: names of the budgets whose function is to be run.
        rising: names of those to be run on the compensated candidate.
    """

    plan: Plan
    score: Score | None = None
    budgets: tuple[str, ...] = ()
    rising: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What was measured.

    Attributes:
        score: the score that was asked for.
        seconds: what building and scoring took.
        costs: budget name -> value.
        cost_seconds: budget name -> what its function took.
        parts: seconds by :data:`PARTS`.
        peak: most memory that the measuring process has held so far, MiB.
        worker: who measured; empty for this process.
    """

    score: float | None = None
    seconds: float = 0.0
    costs: dict[str, float] = field(default_factory=dict)
    cost_seconds: dict[str, float] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)
    peak: float = 0.0
    worker: str = ""


class Assessor:
    """Builds candidates and measures them; what it answers depends on the plan alone.

    Args:
        groups: the network's groups.
        budgets: budgets whose functions it may be asked to run.
        quality: scores a candidate.
        rescore: scores a finalist.
        compensation: methods applied to every candidate before it is scored.
        calibration: calibration batches for them.
    """

    def __init__(
        self,
        groups: Groups,
        budgets: Sequence[ResolvedBudget],
        quality: Quality,
        rescore: Quality,
        compensation: Any,
        calibration: Any,
    ) -> None:
        self.groups = groups
        self._given = (quality, rescore, compensation, calibration)
        self.budgets = {budget.name: budget for budget in budgets}
        self.methods = methods(compensation)
        self._scores: dict[str, Quality] = {"quality": quality, "rescore": rescore}
        self._calibration = calibration
        self._workspace = Workspace(groups)
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._ships_clocks = False

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process builds its own workspace. Formulas are not asked there, and clocks only
        # where somebody wants them read.
        shipped = [
            replace(budget, estimate=None)
            for budget in self.budgets.values()
            if self._ships_clocks or not budget.measured
        ]
        return Assessor, (self.groups, shipped, *self._given)

    def with_clocks(self) -> Assessor:
        """The same, for a process that reads clocks."""
        other = Assessor(self.groups, list(self.budgets.values()), *self._given)
        other._ships_clocks = True
        return other

    def candidate(self, plan: Plan) -> nn.Module:
        """The compacted network of a plan, in eval mode, valid until the next call."""
        return self._workspace.build(plan)

    def answer(self, request: Request) -> Answer:
        """Measure what a request asks for.

        Raises:
            ScoreError: The score raised or is not finite.
            BudgetError: A budget's function fails.
        """
        self._seconds = dict.fromkeys(PARTS, 0.0)
        costs, cost_seconds = self._costs(request)
        start = time.perf_counter()
        score = None
        if request.score is not None or request.rising:
            candidate = self._compensated(request.plan)
            if request.score is not None:
                score = self._score(candidate, request.plan, request.score)
        seconds = time.perf_counter() - start
        if request.rising:
            risen, risen_seconds = self._risen(candidate, request)
            costs, cost_seconds = {**costs, **risen}, {**cost_seconds, **risen_seconds}
        return Answer(score, seconds, costs, cost_seconds, self._seconds, peak_memory())

    def _costs(self, request: Request) -> tuple[dict[str, float], dict[str, float]]:
        if not request.budgets:
            return {}, {}
        with self._timed("build"):
            candidate = self._workspace.build(request.plan)
        return self._run(request.budgets, candidate, request.plan)

    def _risen(
        self, candidate: nn.Module, request: Request
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Costs of a compensated candidate, whose stored statistics are renewed for it."""
        if self._calibration and batch_norms(candidate):
            recalibrate(candidate, self._calibration)
        return self._run(request.rising, candidate, request.plan)

    def _run(
        self, names: Sequence[str], candidate: nn.Module, plan: Plan
    ) -> tuple[dict[str, float], dict[str, float]]:
        costs: dict[str, float] = {}
        seconds: dict[str, float] = {}
        widths, inputs = list(plan.widths.values()), self.groups.example_inputs
        with self._timed("cost"):
            for name in names:
                start = time.perf_counter()
                costs[name] = self.budgets[name].value(candidate, inputs, widths)
                seconds[name] = time.perf_counter() - start
        return costs, seconds

    def _compensated(self, plan: Plan) -> nn.Module:
        with self._timed("build"):
            candidate = self._workspace.build(plan)
        with self._timed("compensate"):
            context = Context(self.groups, plan, candidate, self._calibration)
            for method in self.methods:
                method.apply(context)
        return candidate

    def _score(self, candidate: nn.Module, plan: Plan, score: Score) -> float:
        with self._timed("forward"):
            return checked(self._scores[score], candidate, tuple(plan.widths.values()))

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[part] += time.perf_counter() - start
