"""One search in progress: the problem, the count of unique evaluations, the records."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlprune.plan import Plan
from rlprune.problem import Evaluation
from rlprune.search.archive import Archive
from rlprune.search.progress import ProgressBar
from rlprune.space import Codec

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from rlprune.callbacks import Callback
    from rlprune.problem import Problem
    from rlprune.search.recorder import RecordedEnv

logger = logging.getLogger(__name__)

_PATIENCE = 60


class Session:
    """Evaluates what an agent proposes, counts, records and reports.

    Args:
        problem: what is searched.
        evaluations: unique evaluations to spend, the reference plan included.
        seed: seed of every random choice of the agent.
        options: ``anchor`` and ``project`` of the codec.
        progress: show a bar; None shows it on a terminal only.
        tensorboard: folder for TensorBoard events, or None.
        known: evaluations that other searches on the same network paid for, with their violations
            here. They count as seen, and those that meet every budget join the archive.
        callbacks: told of every unique evaluation; one that returns True ends the search.

    Attributes:
        problem: as given.
        space: its decisions.
        codec: from actions to plans, around the agent's anchor.
        rng: the agent's random generator.
        archive: best feasible evaluations so far.
        ledger: unique evaluations of this search.
        history: one row for each.
        proposals: plans that the agent has proposed.
        stopped: whether a callback has ended the search.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        evaluations: int,
        seed: int,
        options: dict[str, Any] | None = None,
        progress: bool | None = None,
        tensorboard: str | Path | None = None,
        known: Sequence[Evaluation] = (),
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.problem = problem
        self.space = problem.space
        self.evaluations = evaluations
        self.seed = seed
        self.rng = np.random.default_rng(seed)
        self._options = dict(options or {})
        self.codec = Codec(problem, **self._options)
        self.archive = Archive()
        self.ledger: list[Evaluation] = []
        self.history: list[dict[str, float]] = []
        self.proposals = 0
        self.budgets = tuple(b.name for b in problem.budgets)
        self.known = tuple(known)
        self.callbacks = tuple(callbacks)
        self.stopped = False
        for evaluation in self.known:
            self.archive.add(evaluation)
        self._seen: set[Plan] = {evaluation.plan for evaluation in self.known}
        self._repeats = 0
        self._latest: dict[str, float] = {}
        self._started = time.monotonic()
        self._bar = ProgressBar(evaluations, workers=self.workers, show=progress)
        self._writer = _writer(tensorboard)
        self._reference: Evaluation | None = None

    def begin(self) -> None:
        """Evaluates the reference, which is the first entry of the ledger."""
        if self._reference is None:
            plan = self.codec.plan_of(self.codec.anchor)
            self._reference = self.problem.evaluate(plan)
            self.record(self._reference, proposed=False)

    @property
    def reference(self) -> Evaluation:
        """Evaluation of the plan that action 0 everywhere stands for; rewards are relative to it.

        Raises:
            RuntimeError: the search has not begun.
        """
        if self._reference is None:
            raise RuntimeError("there is no reference yet: call begin() first")
        return self._reference

    @property
    def workers(self) -> int:
        """How many plans can be evaluated at the same time."""
        return self.problem.executor.workers

    @property
    def remaining(self) -> int:
        """Unique evaluations left; none once a callback has ended the search."""
        return 0 if self.stopped else max(self.evaluations - len(self.ledger), 0)

    @property
    def done(self) -> bool:
        """Whether to stop: the evaluations are spent, or nothing new comes up any more."""
        return self.remaining == 0 or self._repeats >= _PATIENCE

    def seen(self, plan: Plan) -> bool:
        """Whether a plan was evaluated already, in this search or in one known to it."""
        return plan in self._seen

    def evaluate(self, plans: Sequence[Plan]) -> list[Evaluation]:
        """Evaluates proposals and books them.

        Returns:
            Their evaluations in order; fewer where the unique evaluations run out.
        """
        found = []
        for evaluation in self.problem.stream(self._affordable(plans)):
            self.record(evaluation)
            found.append(evaluation)
        return found

    def make_env(self, **options: Any) -> RecordedEnv:
        """An environment of the problem whose episodes are booked here.

        Args:
            **options: of :class:`rlprune_envs.KeepRatioEnv`, over those of the agent.
        """
        from rlprune.search.recorder import RecordedEnv

        return RecordedEnv(self, {**self._options, **options})

    def record(self, evaluation: Evaluation, *, proposed: bool = True) -> None:
        """Books an evaluation that the problem has made."""
        self.proposals += proposed
        if evaluation.plan in self._seen:
            self._repeats += proposed
            if proposed and self._repeats == _PATIENCE:
                logger.warning(
                    "the search ends at %d of %d evaluations: its last %d proposals were all "
                    "known plans", len(self.ledger), self.evaluations, _PATIENCE,
                )  # fmt: skip
            return
        if self.remaining == 0:
            return
        self._repeats = 0
        self._seen.add(evaluation.plan)
        self.ledger.append(evaluation)
        self.archive.add(evaluation)
        self._report(evaluation, proposed)

    def log(self, name: str, value: float) -> None:
        """Logs a scalar of the agent; it also joins the following rows of the history."""
        self._latest[name] = value
        self._scalar(name, value)

    def close(self) -> None:
        """Ends the progress bar and flushes the TensorBoard events."""
        self._bar.close()
        if self._writer is not None:
            self._writer.close()

    def _affordable(self, plans: Sequence[Plan]) -> Iterator[Plan]:
        """The plans up to the one that would exceed the unique evaluations."""
        fresh: set[Plan] = set()
        for plan in plans:
            if plan not in self._seen and plan not in fresh:
                if len(fresh) == self.remaining:
                    return
                fresh.add(plan)
            yield plan

    def _report(self, evaluation: Evaluation, proposed: bool) -> None:
        best = self.archive.best
        calls = self.problem.ledger.calls
        row = {
            "evaluation": float(len(self.ledger)),
            "quality": evaluation.quality,
            "feasible": float(evaluation.feasible),
            "best_feasible": best.quality if best is not None else float("nan"),
            "repeats": float(self.proposals + 1 - len(self.ledger)),
            "seconds": time.monotonic() - self._started,
            **{f"cost/{name}": evaluation.costs[name] for name in self.budgets},
            **{f"calls/{name}": float(count) for name, count in calls.items()},
            **self._latest,
        }
        self.history.append(row)
        for callback in self.callbacks:
            if callback.on_evaluation(row) and not self.stopped:
                self.stopped = True
                logger.info("%s ends the search", type(callback).__name__)
        self._bar.update(len(self.ledger), best.quality if best is not None else None)
        if proposed:
            self._scalar("search/reward", evaluation.reward(self.reference))
        self._scalar("search/evaluations", float(len(self.ledger)))
        self._scalar("search/cache_hits", max(row["repeats"], 0.0))
        for name, count in calls.items():
            self._scalar(f"search/calls/{name}", float(count))
        if best is not None:
            self._scalar("search/best_feasible", best.quality)

    def _scalar(self, name: str, value: float) -> None:
        if self._writer is not None:
            self._writer.add_scalar(name, value, len(self.ledger))


def _writer(folder: str | Path | None) -> SummaryWriter | None:
    if folder is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))
