"""Budgets are tried before anything is trained, and before a finished folder is touched."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import rlprune
from rlprune.budgets import count_params
from rlprune.cli.job import run as run_job
from rlprune.errors import BudgetError, InfeasibleBudgetError
from rlprune.run import compose

JOB = ("pretrain.epochs=4", "evaluations=2", "agent=uniform", "model.width=8", "export=[]")


def no_training(*_: Any, **__: Any) -> None:
    raise AssertionError("trained before the budgets were tried")


def broken(model: nn.Module, example_inputs: Any) -> float:
    raise OSError("the meter is unplugged")


@pytest.mark.parametrize(
    ("budget", "kind", "message"),
    [
        (["budget.macs=50"], InfeasibleBudgetError, r"'macs': no plan meets .*Did you mean 50%\?"),
        (["budget=params", "budget.params=0.001"], InfeasibleBudgetError, "'params': no plan"),
        (["budget.macs=[0.6,0.0001]"], InfeasibleBudgetError, "'macs': no plan"),
        (
            [f"+budget.own._target_={__name__}.broken", "+budget.own.limit=1"],
            BudgetError,
            "'own': its function raised OSError.*unplugged",
        ),
    ],
)
def test_budgets_are_tried_before_any_training(
    budget: list[str],
    kind: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rlprune.cli.arguments import listed

    monkeypatch.setattr("rlprune.run.dense.pretrain", no_training)
    config = compose(listed([*JOB, *budget, f"pretrained_dir={tmp_path}"]))
    with pytest.raises(kind, match=message):
        run_job(config, tmp_path / "run", redo=False)


def test_a_finished_run_stays_as_it_is_when_its_new_budgets_cannot_be_met(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    x = settings["data"].example_inputs
    rlprune.prune(dense, x, out_dir=tmp_path, **settings)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    impossible = {**settings, "budgets": {"macs": 0.001}}
    with pytest.raises(InfeasibleBudgetError, match="macs"):
        rlprune.prune(dense, x, out_dir=tmp_path, redo=True, **impossible)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {p for p in before if before[p] != after.get(p)} <= {tmp_path / ".lock"}
    assert rlprune.prune(dense, x, out_dir=tmp_path, **settings).report


def falls_with_size(model: nn.Module, example_inputs: Any) -> float:
    """Like an error: the smaller the network, the larger."""
    return 1e6 / count_params(model)


def test_a_budget_that_falls_with_size_is_not_refused(
    dense: nn.Module, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    x = settings["data"].example_inputs
    limit = 1.6 * falls_with_size(dense, x)
    error = rlprune.Budget(falls_with_size, limit=limit, name="error")
    own = {**settings, "budgets": {"macs": 0.7, "error": error}, "finetune": None}
    own |= {"agent": "random", "evaluations": 12}
    with caplog.at_level(logging.WARNING):
        result = rlprune.prune(dense, x, **own)
    assert "'error' does not fall with the network's size" in caplog.text
    assert falls_with_size(result.model, x) <= limit
    tight = rlprune.Budget(falls_with_size, limit=0.5 * falls_with_size(dense, x), name="error")
    with pytest.raises(InfeasibleBudgetError, match=r"no network that was tried .* the dense one"):
        rlprune.prune(dense, x, **{**own, "budgets": {"error": tight}})
