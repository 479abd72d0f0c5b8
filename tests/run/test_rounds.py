"""Iterative pruning: rounds that end where one shot would, resume, and load as any run does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rlprune
from rlprune import FineTune, Plan, prune
from rlprune.errors import ConfigError, StructureError
from rlprune.run import ScheduleSpec
from rlprune.run.rounds import composed

Settings = dict[str, Any]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return {**settings, "schedule": {"name": "iterative", "rounds": 3}, "evaluations": 7}


def test_limits_and_shares_add_up() -> None:
    schedule = ScheduleSpec("iterative", rounds=3)
    assert [schedule.share(10, n) for n in (1, 2, 3)] == [3, 3, 4]
    limits = [schedule.limit(1000.0, 125.0, n) for n in (1, 2, 3)]
    assert limits == pytest.approx([500.0, 250.0, 125.0])
    linear = replace(schedule, steps="linear")
    assert [linear.limit(1000.0, 100.0, n) for n in (1, 2, 3)] == pytest.approx([700, 400, 100])
    assert schedule.limit(10.0, 20.0, 1) == 20.0


def test_plans_one_after_the_other_are_one_plan() -> None:
    first = Plan({"a": (0, 2, 5), "b": (1, 3)}, {"a": 6, "b": 4})
    second = Plan({"a": (1, 2)}, {"a": 3})
    assert composed(first, second) == Plan({"a": (2, 5), "b": (1, 3)}, {"a": 6, "b": 4})
    with pytest.raises(StructureError, match="'a' has 4 units"):
        composed(first, Plan({"a": (0,)}, {"a": 4}))
    with pytest.raises(StructureError, match="no such group"):
        composed(first, Plan({"c": (0,)}, {"c": 4}))


def test_rounds_make_one_run(
    dense: nn.Module, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = settings["data"].example_inputs
    settings["finetune"] = FineTune(epochs=5, lr=0.02)
    result = prune(dense, x, out_dir=tmp_path, **settings)
    budget = result.report["budgets"]["macs"]
    assert result.costs["macs"] <= budget["limit"]
    assert budget["limit"] == pytest.approx(0.6 * budget["dense"])
    rounds = result.report["rounds"]
    assert [row["round"] for row in rounds] == [1, 2, 3]
    shares = [row["limits"]["macs"] / budget["dense"] for row in rounds]
    assert shares == pytest.approx([0.6 ** (n / 3) for n in (1, 2, 3)])
    epochs = [*(row["finetune"] for row in rounds), result.report["finetune"]["history"]]
    assert [max((e["epoch"] for e in told), default=0) for told in epochs] == [1, 1, 0, 3]
    assert result.report["evaluations"] == 7
    assert [row["evaluation"] for row in result.history] == list(range(1, 8))
    loaded = rlprune.load(tmp_path)
    assert torch.equal(loaded(x), result.model(x))
    assert sum(p.numel() for p in loaded.parameters()) < sum(p.numel() for p in dense.parameters())

    # An interrupted run goes on behind the rounds that are done, and ends the same.
    (tmp_path / "stages" / "search.json").unlink()
    (tmp_path / "rounds" / "03" / "stages" / "search.json").unlink()
    trained = []
    from rlprune.run import finetune_stage

    whole = finetune_stage.run_finetune
    monkeypatch.setattr(
        finetune_stage, "run_finetune", lambda *a, **k: trained.append(1) or whole(*a, **k)
    )
    again = prune(dense, x, out_dir=tmp_path, **settings)
    assert again.plan == result.plan
    assert not trained
    assert torch.equal(again.model(x), result.model(x))


def test_another_schedule_is_another_run(
    dense: nn.Module, settings: Settings, tmp_path: Path
) -> None:
    x = settings["data"].example_inputs
    settings.update(finetune=None, compensation="bn", evaluations=3, stages=["search"])
    prune(dense, x, out_dir=tmp_path, **settings)
    record = json.loads((tmp_path / "stages" / "search.json").read_text())
    assert len(record["result"]["rounds"]) == 3
    with pytest.raises(ConfigError, match=r"schedule.*rounds"):
        prune(dense, x, out_dir=tmp_path, **{**settings, "schedule": {"name": "iterative"}})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"schedule": "iterativ"}, "did you mean 'iterative'"),
        ({"schedule": {"name": "iterative", "rounds": 1}}, "at least 2"),
        ({"schedule": {"steps": "square"}}, "schedule.steps='square'"),
        ({"budgets": {"macs": [0.7, 0.5]}}, "not a list"),
        ({"importance": {}}, "as a name or a function"),
    ],
)
def test_mistakes_are_named(
    dense: nn.Module, settings: Settings, wrong: Settings, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prune(dense, settings["data"].example_inputs, **{**settings, **wrong})
