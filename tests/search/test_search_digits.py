"""The search on a real network: a small residual net trained on digits."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from rlprune.budgets import Budget
from rlprune.search import AGENTS, SearchResult, create_agent, search
from tests.problem.problems import evaluator, tiles

CHEAP = {"ppo_lagrangian": {"proposals": 32, "warmup": 8}, "amc": {"updates": 2}}


@pytest.mark.parametrize("name", sorted({*AGENTS} - {"gates"}))
def test_every_agent_returns_a_digits_plan_within_two_budgets(name: str) -> None:
    problem = evaluator({"macs": 0.4, "tiles": Budget(tiles, "60%")})
    agent = create_agent(name, **CHEAP.get(name, {}))
    result = search(problem, agent, evaluations=20, seed=0, progress=False)
    network = problem.candidate(result.best.plan)
    for budget in problem.budgets:
        assert budget.value(network, problem.groups.example_inputs) <= budget.limit
    assert len(result.ledger) == (1 if name == "uniform" else 20)
    assert result.plan == result.best.plan


def test_a_killed_search_replays_to_the_same_ledger_without_scoring_anything_twice(
    tmp_path: Path,
) -> None:
    agent = {"name": "ppo_lagrangian", **CHEAP["ppo_lagrangian"]}
    store = tmp_path / "evaluations.jsonl"

    def run() -> SearchResult:
        with contextlib.closing(evaluator({"macs": 0.4}, store=store)) as problem:
            return search(problem, agent, evaluations=24, seed=2, progress=False)

    whole = run()
    lines = store.read_text().splitlines(keepends=True)
    store.write_text("".join(lines[: len(lines) // 2]))
    again = run()
    assert len(store.read_text().splitlines()) == len(lines)
    assert [e.plan for e in again.ledger] == [e.plan for e in whole.ledger]
    assert again.best.plan == whole.best.plan


def test_ppo_lagrangian_improves_on_the_uniform_digits_plan() -> None:
    result = search(evaluator({"macs": 0.3}), "ppo_lagrangian", 60, 0, progress=False)
    assert result.archive[0].quality > result.ledger[0].quality


def test_a_converged_cem_widens_until_it_finds_new_plans() -> None:
    result = search(evaluator({"macs": 0.3}), "cem", 90, 0, progress=False)
    assert len(result.ledger) == 90
    assert result.history[-1]["repeats"] > 0


def test_ppo_lagrangian_never_proposes_a_known_plan_while_there_are_others() -> None:
    agent = create_agent("ppo_lagrangian", **CHEAP["ppo_lagrangian"])
    result = search(evaluator({"macs": 0.3}), agent, 120, 2, progress=False)
    assert len(result.ledger) == 120
    assert result.history[-1]["repeats"] == 0
