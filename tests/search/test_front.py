"""Searches for a list of limits: what they share, what each returns, how they resume."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from rlprune.budgets import Budget
from rlprune.errors import BudgetError, ConfigError, InfeasibleBudgetError
from rlprune.problem import DataQuality
from rlprune.search import FrontPoint, Session, create_agent, search_front
from tests.problem.problems import evaluator, held_out, network, tiles

LIMITS = {"macs": [0.5, 0.7, 0.3]}
CHEAP = {"ppo_lagrangian": {"proposals": 32, "warmup": 8, "epochs": 4}}


class Counted:
    """A quality that counts how often a network was scored."""

    def __init__(self) -> None:
        self.inner = DataQuality(network(), held_out(), precision="float32")
        self.calls = 0

    def identity(self) -> Any:
        """The quality's own."""
        return self.inner.identity()

    def __call__(self, candidate: nn.Module) -> float:
        self.calls += 1
        return self.inner(candidate)


def front(problem: Any, agent: str = "ppo_lagrangian", **options: Any) -> tuple[FrontPoint, ...]:
    made = create_agent(agent, **CHEAP.get(agent, {}))
    return search_front(problem, LIMITS, made, progress=False, **{"evaluations": 16, **options})


@pytest.mark.parametrize("agent", ["uniform", "random", "cem", "ppo_lagrangian"])
def test_an_agent_meets_every_limit_and_no_plan_is_paid_twice(agent: str) -> None:
    problem = evaluator({"macs": 0.9, "tiles": Budget(tiles, "80%")})
    points = front(problem, agent, evaluations=10, later=0.5)
    assert [point.limit for point in points] == ["macs 70%", "macs 50%", "macs 30%"]
    spent = [len(point.result.ledger) for point in points]
    assert spent == [10, 5, 5] or (agent == "uniform" and max(spent) == 1)
    plans = [e.plan for point in points for e in point.result.ledger]
    assert len(set(plans)) == len(plans)
    for point, share in zip(points, (0.7, 0.5, 0.3), strict=True):
        made = problem.candidate(point.result.best.plan)
        macs, tile = point.problem.budgets
        assert macs.limit == pytest.approx(share * macs.dense)
        for budget in (macs, tile):
            assert budget.value(made, problem.groups.example_inputs) <= budget.limit


def test_a_plan_of_one_limit_counts_for_every_other_that_it_meets() -> None:
    points = front(evaluator({"macs": 0.7}), "random")
    everything = [e for point in points for e in point.result.ledger]
    for point in points:
        limit = point.problem.budgets[0].limit
        best = max(e.quality for e in everything if e.costs["macs"] <= limit)
        assert point.result.archive[0].quality == best
        assert all(e.violations["macs"] <= 0 for e in point.result.archive)
    best = [point.result.archive[0].quality for point in points]
    assert best == sorted(best, reverse=True)


def test_interrupted_anywhere_a_front_replays_to_the_same_result(tmp_path: Path) -> None:
    store = tmp_path / "evaluations.jsonl"

    def run() -> tuple[list[Any], int]:
        quality = Counted()
        problem = evaluator({"macs": 0.7}, store=store, quality=quality, open_limits=["macs"])
        with contextlib.closing(problem):
            points = front(problem)
        found = [
            (p.result.best.plan, p.result.score, [e.plan for e in p.result.ledger]) for p in points
        ]
        return found, quality.calls

    whole, calls = run()
    assert calls >= 30
    lines = store.read_text().splitlines(keepends=True)
    assert run() == (whole, 0)
    kept = len(lines) // 2
    store.write_text("".join(lines[:kept]))
    assert run() == (whole, len(lines) - kept)


def test_the_store_of_a_front_serves_another_list_of_limits(tmp_path: Path) -> None:
    store = tmp_path / "evaluations.jsonl"
    for limit, limits in ((0.7, [0.7, 0.5]), (0.8, [0.8, 0.5])):
        problem = evaluator({"macs": limit}, store=store, open_limits=["macs"])
        with contextlib.closing(problem):
            points = search_front(problem, {"macs": limits}, "uniform", progress=False)
        assert [p.result.best.feasible for p in points] == [True, True]
    assert points[1].problem.stats["replayed"] == 1


def test_later_limits_start_from_the_surrogates_data_and_the_policy_before() -> None:
    points = front(evaluator({"macs": 0.7}))
    assert points[0].result.agent.origin is None
    assert points[2].result.agent.origin == "the search for macs 50%"
    first, second = (point.result for point in points[:2])
    assert second.history[0]["best_feasible"] >= max(
        [e.quality for e in first.ledger if e.costs["macs"] <= second.best.costs["macs"]],
        default=second.ledger[0].quality,
    )


@pytest.mark.parametrize(
    ("limits", "options", "error", "message"),
    [
        ({"macs": [0.5], "params": [0.5]}, {}, ConfigError, "exactly one budget, got macs, params"),
        ({"macs": []}, {}, ConfigError, "'macs' needs at least one limit"),
        ({"macs": [0.5, "50%"]}, {}, ConfigError, "'macs' has the limit .* twice"),
        ({"macs": [0.5]}, {"later": 0}, ConfigError, "later must be in .0, 1., got 0"),
        ({"params": [0.5]}, {}, BudgetError, "no budget 'params'; its budgets are macs"),
        ({"macs": [0.5, 1e-6]}, {}, InfeasibleBudgetError, "'macs': no plan meets the limit"),
    ],
)
def test_fronts_that_cannot_be_are_refused_before_anything_is_evaluated(
    limits: dict[str, Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    problem = evaluator({"macs": 0.7})
    with pytest.raises(error, match=message):
        search_front(problem, limits, "uniform", progress=False, **options)
    assert len(problem.ledger) == 0


def test_rewards_of_known_plans_are_relative_to_the_reference_of_the_limit() -> None:
    problem = evaluator({"macs": 0.7})
    session = Session(problem.at({"macs": "30%"}), evaluations=5, seed=0, progress=False)
    with pytest.raises(RuntimeError, match=r"call begin\(\) first"):
        _ = session.reference
    session.begin()
    uniform = session.reference
    assert uniform.reward(uniform) == 0.0
    assert replace(uniform, quality=uniform.quality / 2).reward(uniform) == pytest.approx(0.5)
    assert len(problem.ledger) == 0, "the ledger of another limit is another"
