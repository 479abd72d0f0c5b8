"""As small as possible: one budget's value is minimised while quality holds after fine-tuning."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rlprune.errors import BudgetError, ConfigError
from rlprune.files import write_json
from rlprune.identity import describe
from rlprune.modes import evaluating
from rlprune.run.changes import compare_with_run
from rlprune.run.folder import RunFolder
from rlprune.run.job import Job
from rlprune.run.result import PruneResult
from rlprune.run.search_stage import STORE, fresh_events, open_problem, starting_agent, write_found
from rlprune.run.stages import Stages
from rlprune.tasks import Metric

if TYPE_CHECKING:
    from rlprune.search import Agent
    from rlprune.search.runner import Exploration

log = logging.getLogger(__name__)

FILE = "smallest.json"
_SCORE = Metric("score", "score")


@dataclass(frozen=True)
class Try:
    """A limit of the objective, and what came of it.

    Attributes:
        share: The limit as a share of the dense network's value.
        folder: Name of the run's folder.
        value: The objective of the network that was fine-tuned for it.
        quality: Its metric on held-out samples.
        drop: How far that is below the dense network's, in the metric's own unit.
        met: Whether the drop is allowed.
    """

    share: float
    folder: str
    value: float
    quality: float
    drop: float
    met: bool


def prune_smallest(job: Job, on_start: Callable[[], object] | None = None) -> PruneResult:
    """Bisect the limit of the objective; every limit is an ordinary run, with fine-tuning.

    The searches share their evaluations and go on from one another's policies. What decides is the
    network that is handed over: its metric on held-out samples, measured after fine-tuning, as the
    dense network's is on the same samples.

    Args:
        job: The run; the objective's budget allows the dense network.
        on_start: Called once the folder is found to belong to this run.

    Returns:
        The result with the smallest value of the objective whose quality holds. ``smallest.json``
        in the run folder lists all tries.

    Raises:
        ConfigError: Stages are left out, or the schedule is iterative.
        BudgetError: No limit that was tried keeps the quality; says how near one came.
        RlpruneError: As an ordinary run, for any of the limits.
    """
    spec = job.spec
    if spec.schedule.iterative or not {"search", "finetune"} <= set(spec.stages):
        raise ConfigError("objective= runs search and fine-tuning of every limit, with one-shot")
    job.settings["search"]["objective"] = describe([spec.objective, spec.quality])
    compare_with_run(job)
    if on_start is not None:
        on_start()
    with ExitStack() as stack:
        descent = _Descent(job, stack)
        tries, results = descent.run()
    met = [at for at, found in enumerate(tries) if found.met]
    best = min(met, key=lambda at: tries[at].value) if met else None
    record = {
        "objective": spec.objective,
        "allowed": descent.allowed,
        "dense": {"value": descent.dense_value, "quality": descent.dense_quality},
        "tries": [vars(found) for found in tries],
        "chosen": None if best is None else tries[best].folder,
    }
    write_json(job.folder / FILE, record)
    if best is None:
        nearest = min(tries, key=lambda found: found.drop)
        raise BudgetError(
            f"objective {spec.objective!r}: at {100 * nearest.share:.1f}% of the dense value the "
            f"held-out {descent.metric.label} still changes by "
            f"{descent.metric.change(descent.dense_quality, nearest.quality)}; raise "
            "quality.max_drop, evaluations or finetune.epochs"
        )
    chosen = results[best]
    return replace(chosen, report={**chosen.report, "smallest": record} if chosen.report else {})


class _Descent:
    """One bisection: what it has searched, and how the next limit is searched."""

    def __init__(self, job: Job, stack: ExitStack) -> None:
        self.job, self.stack = job, stack
        self.name = str(job.spec.objective)
        self.metric = _SCORE if job.data is None or job.score is not None else job.data.task.metric
        self.dense_quality = held_out(job, job.dense)
        self.allowed = job.spec.quality.drop(self.metric, self.dense_quality)
        self._limits: list[str] = []
        self._explored: list[Exploration] = []
        self.problem = open_problem(job, store=job.folder / STORE, open_limits=(self.name,))
        stack.callback(self.problem.close)
        budget = next(b for b in self.problem.budgets if b.name == self.name)
        self.dense_value = budget.dense
        smallest = self.problem.costs(self.problem.space.plan(self.problem.space.smallest))
        self.reachable = smallest[self.name] / budget.dense

    def run(self) -> tuple[list[Try], list[PruneResult]]:
        """Bisect."""
        low, high = self.reachable, 1.0
        tries: list[Try] = []
        results: list[PruneResult] = []
        for number in range(self.job.spec.quality.tries):
            share = round((low + high) / 2, 3)
            if not low < share < high:
                break
            found, result = self._try(number, share)
            tries.append(found)
            results.append(result)
            log.info(
                "%s at most %s of dense: held-out %s %s, %s", self.name, self._limits[-1],
                self.metric.label, self.metric.change(self.dense_quality, found.quality),
                "kept" if found.met else "too much",
            )  # fmt: skip
            if found.met:
                high = min(share, found.value / self.dense_value)
            else:
                low = share
        return tries, results

    def _try(self, number: int, share: float) -> tuple[Try, PruneResult]:
        job, limit = self.job, f"{100 * share:.12g}%"
        self._limits.append(limit)
        budgets = tuple(b.limited(limit) if b.name == self.name else b for b in job.budgets)
        folder = f"{self.name}_{100 * share:.12g}"
        part = replace(
            job,
            budgets=budgets,
            evaluations=self._count(number),
            folder=RunFolder(job.folder / folder),
        )
        part.groups = job.groups
        with part.folder.lock():
            result = Stages(part, lambda: self._searched(number, part)).run()
        assert result.model is not None
        quality = held_out(job, result.model)
        drop = self.metric.score(self.dense_quality) - self.metric.score(quality)
        value = result.costs[self.name]
        return Try(share, folder, value, quality, drop, drop <= self.allowed), result

    def _count(self, number: int) -> int:
        from rlprune.search.front import shares

        return shares(self.job.evaluations, self.job.spec.front_later, number + 1)[-1]

    def _searched(self, number: int, part: Job) -> dict[str, Any]:
        """The search stage of a limit; those before are replayed where they are not at hand."""
        from rlprune.search.front import under_limits
        from rlprune.search.runner import conclude

        while len(self._explored) <= number:
            self._explore(len(self._explored), part)
        past = self._explored[number]
        for other in self._explored[:number]:
            for evaluation in other.session.ledger:
                past.session.archive.add(under_limits(past.problem, evaluation))
        return write_found(part, past.problem, conclude(past))

    def _explore(self, number: int, part: Job) -> None:
        from rlprune.search.front import under_limits
        from rlprune.search.runner import explore

        under = self.problem.at({self.name: self._limits[number]})
        known = [e for past in self._explored for e in past.session.ledger]
        self._explored.append(
            explore(
                under,
                self._agent(number),
                evaluations=self._count(number),
                seed=part.spec.seed,
                progress=part.spec.progress,
                tensorboard=fresh_events(part),
                known=[under_limits(under, evaluation) for evaluation in known],
                callbacks=part.callbacks,
            )
        )

    def _agent(self, number: int) -> Agent:
        if not number:
            return starting_agent(self.job)
        heir = self._explored[-1].agent.heir()
        heir.origin = f"the search for {self.name} {self._limits[number - 1]}"
        return heir


def held_out(job: Job, network: nn.Module) -> float:
    """The metric that decides, on held-out samples: the user's score, or the task's metric."""
    if job.score is not None:
        own = copy.deepcopy(network)
        with evaluating(own), torch.no_grad():
            return float(job.score(own))
    from rlprune.training import evaluate

    assert job.data is not None
    batches = job.data.holdout_batches(device=job.device)
    found = evaluate(network, batches, task=job.data.task, device=job.device)
    return float(found[job.data.task.metric.name])
