"""Run one agent on one problem."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlprune.errors import ConfigError, InfeasibleBudgetError
from rlprune.problem import Evaluation
from rlprune.search.agent import Agent, AgentConfig, resolve_agent
from rlprune.search.finalists import Finalist, choose
from rlprune.search.session import Session

if TYPE_CHECKING:
    from rlprune.callbacks import Callback
    from rlprune.plan import Plan
    from rlprune.problem import Problem

_FINALISTS = 8


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: the chosen evaluation; it meets every budget.
        plan: its plan.
        score: its quality on the re-scoring set.
        finalists: the re-scored plans, best first.
        archive: best feasible evaluations by search quality, best first.
        ledger: all unique evaluations in order of first request.
        history: one row per unique evaluation (quality, best so far, costs, multipliers, ...).
        agent: the agent after the search, to be saved or reused.
        seconds: wall time.
    """

    best: Evaluation
    plan: Plan
    score: float
    finalists: tuple[Finalist, ...]
    archive: tuple[Evaluation, ...]
    ledger: tuple[Evaluation, ...]
    history: tuple[dict[str, float], ...] = field(repr=False)
    agent: Agent = field(repr=False)
    seconds: float


def search(
    problem: Problem,
    agent: str | AgentConfig | Agent | type[Agent] | Mapping[str, Any] = "ppo_lagrangian",
    evaluations: int = 300,
    seed: int = 0,
    progress: bool | None = None,
    tensorboard: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> SearchResult:
    """Searches for the best plan that meets every budget.

    The search spends exactly ``evaluations`` unique evaluations (the uniform plan is the first;
    the ``uniform`` agent needs no other, and a space with fewer distinct plans ends earlier). The
    best feasible plans are then re-scored on more data and repaired onto the budgets.

    Args:
        problem: the evaluator of the network.
        agent: what :func:`rlprune.search.resolve_agent` reads: a name, a dotted path, ...
        evaluations: unique candidate evaluations.
        seed: same seed, same problem, same result.
        progress: show a bar; None shows it on a terminal only.
        tensorboard: folder for TensorBoard events.
        callbacks: told of every unique evaluation; one may end the search.

    Raises:
        ConfigError: unknown agent, or ``evaluations`` below 1.
        InfeasibleBudgetError: no plan that meets the budgets could be built.
    """
    exploration = explore(
        problem,
        resolve_agent(agent),
        evaluations=evaluations,
        seed=seed,
        progress=progress,
        tensorboard=tensorboard,
        callbacks=callbacks,
    )
    return conclude(exploration)


@dataclass(frozen=True)
class Exploration:
    """What an agent did on one problem, before a plan is chosen.

    Attributes:
        problem: what was searched.
        agent: the agent after the search.
        session: its records.
        seconds: wall time.
    """

    problem: Problem
    agent: Agent
    session: Session
    seconds: float


def explore(
    problem: Problem,
    agent: Agent,
    *,
    evaluations: int,
    seed: int,
    progress: bool | None = None,
    tensorboard: str | Path | None = None,
    known: Sequence[Evaluation] = (),
    callbacks: Sequence[Callback] = (),
) -> Exploration:
    """Lets an agent spend its evaluations; see :func:`search` and :class:`Session`."""
    if evaluations < 1:
        raise ConfigError(f"evaluations must be at least 1, got {evaluations}")
    problem.restart()
    started = time.monotonic()
    session = Session(
        problem,
        evaluations=evaluations,
        seed=seed,
        options=agent.options(),
        progress=progress,
        tensorboard=tensorboard,
        known=known,
        callbacks=callbacks,
    )
    try:
        session.begin()
        agent.run(session)
    finally:
        session.close()
    return Exploration(problem, agent, session, time.monotonic() - started)


def conclude(exploration: Exploration) -> SearchResult:
    """Re-scores the best plans in the archive, repairs them onto the budgets and chooses one.

    Raises:
        InfeasibleBudgetError: no plan that meets the budgets could be built.
    """
    problem, session = exploration.problem, exploration.session
    started = time.monotonic()
    archive = tuple(session.archive)
    least_violating = sorted(session.ledger, key=lambda e: max(e.violations.values(), default=0.0))
    finalists = choose(
        problem, archive[:_FINALISTS], least_violating[:_FINALISTS], session.codec.costs
    )
    if not finalists:
        names = ", ".join(b.name for b in problem.budgets)
        raise InfeasibleBudgetError(
            f"none of {len(session.ledger)} evaluated plans could be repaired onto the budgets "
            f"({names}); raise a limit or lower the minimum widths"
        )
    best = finalists[0]
    return SearchResult(
        best=best.evaluation,
        plan=best.evaluation.plan,
        score=best.score,
        finalists=tuple(finalists),
        archive=archive,
        ledger=tuple(session.ledger),
        history=_table(session.history),
        agent=exploration.agent,
        seconds=exploration.seconds + time.monotonic() - started,
    )


def _table(rows: list[dict[str, float]]) -> tuple[dict[str, float], ...]:
    """Rows with the same columns; NaN where nothing was logged yet."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return tuple({name: row.get(name, float("nan")) for name in columns} for row in rows)
