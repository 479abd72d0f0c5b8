"""Gates as an agent: budgets met, better than uniform, the same again, in steps as in one go."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlprune.budgets import Budget
from rlprune.errors import CheckpointError, ConfigError
from rlprune.gates import SoftCosts
from rlprune.problem import Problem
from rlprune.search import SearchResult, search
from rlprune.space import CostModel
from rlprune.tasks import Classification
from tests.problem.problems import digits, evaluator, tiles

SHORT = {"name": "gates", "steps": 30, "learning_rate": 0.2, "snapshots": 2}


def problem(budgets: Any, **options: Any) -> Problem:
    images, labels = digits()
    samples = [(images[at : at + 64], labels[at : at + 64]) for at in range(0, 384, 64)]
    return evaluator(budgets, samples=samples, task=Classification(), **options)


def run(found: Problem, seed: int = 0, **options: Any) -> SearchResult:
    return search(found, {**SHORT, **options}, evaluations=6, seed=seed, progress=False)


@pytest.mark.parametrize("kind", ["hard_concrete", "scaling", "top_k"])
def test_gates_beat_the_uniform_plan_within_the_budget(kind: str) -> None:
    result = run(problem({"macs": 0.3}), kind=kind)
    assert result.best.feasible
    assert len(result.ledger) == 6
    assert result.archive[0].quality > result.ledger[0].quality + 0.05
    assert result.history[-1]["gates/core_seconds"] > 0
    assert result.history[-1]["gates/evaluations"] > 0
    assert result.history[-1]["constraint/macs/lambda"] >= 0


def test_depth_and_a_black_box_beside_a_formula() -> None:
    found = problem({"tiles": Budget(tiles, "60%"), "params": 0.4}, depth=True)
    result = run(found, steps=10, weight_rate=1e-3, labels=0.5)
    assert result.best.feasible
    network = found.candidate(result.best.plan)
    for budget in found.budgets:
        assert budget.value(network, found.groups.example_inputs) <= budget.limit
    assert set(result.agent.state["branches"]) == set(found.groups.branches)


def test_a_killed_run_replays_to_the_same_plan_and_another_seed_to_another(tmp_path: Path) -> None:
    store = tmp_path / "evaluations.jsonl"

    def ledger(seed: int = 0) -> list[Any]:
        with contextlib.closing(problem({"macs": 0.4}, store=store)) as found:
            return [evaluation.plan for evaluation in run(found, seed, steps=8).ledger]

    whole = ledger()
    lines = store.read_text().splitlines(keepends=True)
    store.write_text("".join(lines[: len(lines) // 2]))
    torch.rand(3)
    assert ledger() == whole
    assert len(store.read_text().splitlines()) == len(lines)
    assert ledger(1) != whole


def test_soft_costs_are_the_costs_where_gates_are_binary() -> None:
    found = problem({"macs": 0.5, "bytes": 0.5}, depth=True)
    groups, branches = found.groups, list(found.groups.branches.values())
    soft = SoftCosts(found, CostModel(found), depth=True)
    rng = np.random.default_rng(0)
    for gone in (None, branches[0]):
        widths = [int(rng.integers(1, group.width + 1)) for group in groups.prunable]
        opened = torch.tensor([float(branch is not gone) for branch in branches])
        inside = () if gone is None else gone.groups
        real = [0 if g.name in inside else w for g, w in zip(groups.prunable, widths, strict=True)]
        value = soft(torch.tensor(widths), opened)[0] * found.budgets[0].limit
        assert float(value) == pytest.approx(groups.macs(real), rel=1e-9)


def test_without_samples_gates_say_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"give data=rlprune\.Data"):
        run(evaluator({"macs": 0.5}))


def test_gates_start_from_the_plan_of_another_agent(tmp_path: Path) -> None:
    other = search(problem({"macs": 0.3}), "ppo_lagrangian", 12, 0, progress=False).plan
    (tmp_path / "plan.json").write_text(other.to_json())
    result = run(problem({"macs": 0.3}), steps=8, start=str(tmp_path))
    assert result.ledger[1].plan == other
    with pytest.raises(CheckpointError, match="cannot read a plan"):
        run(problem({"macs": 0.3}), start=str(tmp_path / "nothing"))
