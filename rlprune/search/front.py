"""The accuracy-cost front: one search after another, each starting from what the last learned."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlprune.errors import ConfigError
from rlprune.problem import Evaluation
from rlprune.search.agent import Agent, AgentConfig, resolve_agent
from rlprune.search.runner import Exploration, SearchResult, conclude, explore

if TYPE_CHECKING:
    from rlprune.budgets import Limit
    from rlprune.callbacks import Callback
    from rlprune.problem import Problem

log = logging.getLogger(__name__)

LATER = 0.4
"""Evaluations of every limit after the first, as a share of the first one's."""


@dataclass(frozen=True)
class FrontPoint:
    """The search for one limit.

    Attributes:
        limit: the limit as it was asked for.
        problem: the problem under this limit.
        result: what was found; its ledger holds what was evaluated for this limit alone.
    """

    limit: str
    problem: Problem
    result: SearchResult


def shares(evaluations: int, later: float, count: int) -> list[int]:
    """Unique evaluations of each of ``count`` limits, the first one first.

    Raises:
        ConfigError: ``later`` is not in (0, 1].
    """
    if not 0 < later <= 1:
        raise ConfigError(f"front: later must be in (0, 1], got {later!r}")
    return [evaluations] + [max(math.ceil(later * evaluations), 1)] * (count - 1)


def search_front(
    problem: Problem,
    limits: Mapping[str, Sequence[float | str | Limit]],
    agent: str | AgentConfig | Agent | type[Agent] | Mapping[str, Any] = "ppo_lagrangian",
    evaluations: int = 300,
    later: float = LATER,
    seed: int = 0,
    progress: bool | None = None,
    tensorboard: Sequence[str | Path] | None = None,
    callbacks: Sequence[Callback] = (),
) -> tuple[FrontPoint, ...]:
    """Searches for the best plan under each of several limits of one budget.

    Loosest limit first. Quality does not depend on a limit, so nothing is evaluated twice: what
    one search evaluated is known to those after it (a surrogate learns from it), and every limit
    chooses its plan from all evaluations of all searches that meet it. Actions are relative to
    the limit's uniform plan, so an agent goes on from the policy of the limit before.

    Args:
        problem: the evaluator of the network; its budgets that are not varied hold throughout.
        limits: name of one budget -> its limits, in any order.
        agent: as in :func:`rlprune.search.search`.
        evaluations: unique evaluations for the first limit.
        later: those for each limit after it, as a share.
        seed: same seed, same problem, same result.
        progress: show a bar; None shows it on a terminal only.
        tensorboard: one folder per limit, loosest first.
        callbacks: told of every unique evaluation; one may end the search for a limit.

    Returns:
        One point per limit, loosest first.

    Raises:
        ConfigError: not exactly one budget, no limit, the same limit twice, or ``later`` is out
            of range.
        BudgetError: a budget's name is unknown.
        InfeasibleBudgetError: a limit cannot be met; found before anything is evaluated.
    """
    problems = _problems(problem, limits)
    counts = shares(evaluations, later, len(problems))
    player = resolve_agent(agent)
    explored: list[Exploration] = []
    for index, (under, count) in enumerate(zip(problems, counts, strict=True)):
        known = [e for past in explored for e in past.session.ledger]
        log.info("searching for %s, %d evaluations", _shown(under, limits), count)
        if explored:
            player = player.heir()
            player.origin = f"the search for {_shown(explored[-1].problem, limits)}"
        explored.append(
            explore(
                under,
                player,
                evaluations=count,
                seed=seed,
                progress=progress,
                tensorboard=None if tensorboard is None else tensorboard[index],
                known=[under_limits(under, evaluation) for evaluation in known],
                callbacks=callbacks,
            )
        )
    pool = [evaluation for past in explored for evaluation in past.session.ledger]
    for past in explored:
        for evaluation in pool:
            past.session.archive.add(under_limits(past.problem, evaluation))
    return tuple(
        FrontPoint(_shown(past.problem, limits), past.problem, conclude(past)) for past in explored
    )


def under_limits(problem: Problem, evaluation: Evaluation) -> Evaluation:
    """An evaluation made under other limits, with its violations of these."""
    violations = {b.name: b.violation(evaluation.costs[b.name]) for b in problem.budgets}
    return replace(evaluation, violations=violations)


def _problems(
    problem: Problem, limits: Mapping[str, Sequence[float | str | Limit]]
) -> list[Problem]:
    """The problem under every limit, loosest first."""
    if len(limits) != 1:
        raise ConfigError(
            f"a front varies exactly one budget, got {', '.join(limits) or 'none'}; give the "
            "others one limit each"
        )
    ((name, asked),) = limits.items()
    if not asked:
        raise ConfigError(f"front: budget {name!r} needs at least one limit")
    found = [(under, _limit(under, name)) for under in (problem.at({name: x}) for x in asked)]
    found.sort(key=lambda pair: -pair[1])
    for (_, looser), (_, tighter) in itertools.pairwise(found):
        if looser == tighter:
            raise ConfigError(f"front: budget {name!r} has the limit {looser:g} twice")
    return [under for under, _ in found]


def _limit(problem: Problem, name: str) -> float:
    return next(budget.limit for budget in problem.budgets if budget.name == name)


def _shown(problem: Problem, limits: Mapping[str, Any]) -> str:
    return next(f"{b.name} {b.spec}" for b in problem.budgets if b.name in limits)
