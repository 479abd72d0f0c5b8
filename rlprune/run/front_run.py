"""One run, a list of limits: the searches share what they learn, each limit gets its own folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rlprune.budgets import BudgetSets
from rlprune.run.changes import compare_with_run
from rlprune.run.folder import RunFolder
from rlprune.run.job import Job
from rlprune.run.result import PruneResult
from rlprune.run.search_stage import STORE, fresh_events, open_problem, starting_agent, write_found
from rlprune.run.stages import Stages

if TYPE_CHECKING:
    from rlprune.search import FrontPoint

log = logging.getLogger(__name__)


def prune_front(
    job: Job, asked: BudgetSets, on_start: Callable[[], object] | None = None
) -> PruneResult:
    """Run the stages for every limit of a front.

    The folder of each limit is that of an ordinary run. The folder above holds the evaluations
    that the searches share, and a table and a picture of the front once every limit has a report.

    Args:
        job: The run, with the loosest limit.
        asked: The budgets at every limit.
        on_start: Called once the folder is found to belong to this run.

    Returns:
        The result of the tightest limit, with those of all limits as ``front``.

    Raises:
        RlpruneError: As an ordinary run, for any of the limits.
    """
    from rlprune.report import front as report
    from rlprune.search.front import shares

    counts = shares(job.evaluations, job.spec.front_later, len(asked.sets))
    jobs = [
        _part(job, replace(job, budgets=chosen, evaluations=count, folder=RunFolder(path)))
        for chosen, count, path in zip(
            asked.sets, counts, (job.folder / label for label in asked.labels), strict=True
        )
    ]
    front = {
        "budget": asked.varied,
        "limits": [str(budget.limit) for budget in asked.limits],
        "evaluations": counts,
    }
    job.settings["search"]["budgets"] = {
        name: {**told, "limit": "front"} if name == asked.varied else told
        for name, told in job.settings["search"]["budgets"].items()
    }
    job.settings["search"]["front"] = front
    compare_with_run(job)
    if on_start is not None:
        on_start()
    if "search" in job.spec.stages:
        _forget_other_fronts(jobs, front)
    with ExitStack() as stack:
        searches = _Searches(job, jobs, asked, front, stack)
        results = []
        for index, part in enumerate(jobs):
            log.info("limit %d/%d: %s", index + 1, len(jobs), asked.labels[index])
            with part.folder.lock():
                results.append(Stages(part, searches.of(index)).run())
    table: dict[str, Any] = {}
    if all(result.report for result in results):
        table = report.write(job.folder.path, front, asked.labels, [r.report for r in results])
    return replace(
        results[-1],
        report=table,
        out_dir=None if job.spec.out_dir is None else job.folder.path,
        front=tuple(results),
    )


class _Searches:
    """The searches of a front, all of them run when the first of their results is needed.

    After an interruption they are replayed from the evaluations that they share.
    """

    def __init__(
        self,
        job: Job,
        jobs: Sequence[Job],
        asked: BudgetSets,
        front: dict[str, Any],
        stack: ExitStack,
    ) -> None:
        self._job, self._jobs, self._asked = job, jobs, asked
        self._front, self._stack = front, stack

    def of(self, index: int) -> Callable[[], dict[str, Any]]:
        """The search stage of one limit."""

        def run() -> dict[str, Any]:
            point = self._points[index]
            found = write_found(self._jobs[index], point.problem, point.result)
            return {**found, "front": self._front}

        return run

    @cached_property
    def _points(self) -> tuple[FrontPoint, ...]:
        from rlprune.search import search_front

        job, name = self._job, self._asked.varied
        assert name is not None
        problem = open_problem(job, store=job.folder / STORE, open_limits=(name,))
        self._stack.callback(problem.close)
        return search_front(
            problem,
            {name: [budget.limit for budget in self._asked.limits]},
            agent=starting_agent(job),
            evaluations=job.evaluations,
            later=job.spec.front_later,
            seed=job.spec.seed,
            progress=job.spec.progress,
            tensorboard=[fresh_events(part) for part in self._jobs],
            callbacks=job.callbacks,
        )


def _part(whole: Job, part: Job) -> Job:
    """The job of one limit, which need not trace the network again."""
    part.groups = whole.groups
    return part


def _forget_other_fronts(jobs: Sequence[Job], front: dict[str, Any]) -> None:
    """Make searches run again that belong to another list of limits: they shared less, or more."""
    for job in jobs:
        record = job.folder.record("search")
        if record is not None and record.result.get("front") != front:
            log.info("%s was searched for another front", job.folder.path)
            job.folder.forget("search")
