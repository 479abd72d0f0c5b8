"""What is protected: a loss that may not rise binds the search and the network handed over."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from rlprune import Budget, prune
from rlprune.budgets import ClassLoss, protected
from rlprune.errors import ConfigError, InfeasibleBudgetError
from rlprune.problem import Problem
from rlprune.search import search
from tests.problem.problems import evaluator


def heavier(model: nn.Module, inputs: Any) -> float:
    """Rises as the first convolution loses channels."""
    return 100.0 - next(model.parameters()).shape[0]


def test_plans_are_not_scaled_onto_what_rises(tmp_path: Path) -> None:
    limit = 100.0 - 5

    def problem() -> Problem:
        budgets = {"macs": 0.5, "kept": Budget(heavier, limit, rising=True)}
        return evaluator(budgets, store=tmp_path / "evaluations.jsonl")

    found = problem()
    result = search(
        found,
        {"name": "ppo_lagrangian", "warmup": 6, "proposals": 16, "epochs": 2},
        12,
        0,
        progress=False,
    )
    assert result.best.feasible
    width = next(iter(result.plan.widths.values()))
    assert result.best.costs["kept"] == 100.0 - width <= limit
    over = [e for e in result.ledger if e.costs["kept"] > limit]
    assert all(not evaluation.feasible for evaluation in over)
    assert {e.costs["kept"] for e in result.ledger} > {100.0 - width}
    found.close()
    with contextlib.closing(problem()) as known:
        assert [known.evaluate(e.plan).costs for e in result.ledger] == [
            e.costs for e in result.ledger
        ]
        assert known.costs(result.plan)["kept"] == 0
        assert known.all_costs(result.plan) == result.best.costs


def test_a_class_is_protected(dense: nn.Module, settings: dict[str, Any], tmp_path: Path) -> None:
    data = settings["data"]
    result = prune(dense, data.example_inputs, protect={"3": "150%"}, out_dir=tmp_path, **settings)
    budget = result.report["budgets"]["loss of 3"]
    assert budget["limit"] == pytest.approx(1.5 * budget["dense"])
    task, (x, y) = data.task, data.calibration(settings.get("calibration_images", 1024))
    loss = ClassLoss(task, x[y == 3], y[y == 3])
    assert loss(result.model.eval()) == pytest.approx(budget["value"], rel=1e-5)
    assert budget["value"] <= budget["limit"]
    with pytest.raises(InfeasibleBudgetError, match="loss of 3"):
        prune(dense, data.example_inputs, protect={"3": 1e-6}, **settings)


def test_mistakes_are_named(settings: dict[str, Any]) -> None:
    data = settings["data"]
    samples = data.calibration(100)
    with pytest.raises(ConfigError, match="no class 'cat'"):
        protected({"cat": "110%"}, data.task, samples, ("dog", "car"))
    with pytest.raises(ConfigError, match=r"rlprune\.analysis\.protect"):
        protected({"NUMBER": "110%"}, None, None, None)
    own = Budget(heavier, 99.0, rising=True)
    assert protected({"mine": own}, None, None, None)["mine"].rising
