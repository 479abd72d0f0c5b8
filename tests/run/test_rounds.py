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


def test_gradual_pruning_is_one_training_and_resumes(
    dense: nn.Module, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = settings["data"].example_inputs
    settings.update(
        schedule={"name": "gradual", "rounds": 3}, finetune=FineTune(epochs=4, lr=0.02), depth=True
    )
    result = prune(dense, x, out_dir=tmp_path, **settings)
    report = result.report
    assert result.costs["macs"] <= report["budgets"]["macs"]["limit"]
    history = report["finetune"]["history"]
    assert [row["epoch"] for row in history] == [0, 1, 1, 2, 2, 3, 4]
    # One learning rate over all steps: up for a fifth, then down to the end.
    rates = [row["lr"] for row in history if row["lr"]]
    assert rates == sorted(rates, reverse=True)
    left = [row["units"] for row in report["rounds"]]
    assert left == sorted(left, reverse=True)
    final = sum(result.plan.widths.values()) / sum(result.plan.dense.values())
    assert left[-1] == pytest.approx(final)
    assert left[0] == pytest.approx(final + (1 - final) * (2 / 3) ** 3, abs=0.05)
    assert "Round by round" in (tmp_path / "report.html").read_text()
    assert torch.equal(rlprune.load(tmp_path)(x), result.model(x))

    # The search is that of a one-shot run; a training killed in its last step goes on there.
    from rlprune.run import gradual

    (tmp_path / "stages" / "finetune.json").unlink()
    whole, seen = gradual.between, []

    def killed(*given: Any) -> Plan:
        seen.append(given[-1])
        if len(seen) == 3:
            raise KeyboardInterrupt
        return whole(*given)

    monkeypatch.setattr(gradual, "between", killed)
    with pytest.raises(KeyboardInterrupt):
        prune(dense, x, out_dir=tmp_path, **settings)
    assert {path.name for path in (tmp_path / "finetune").iterdir()} == {"01", "02"}
    again = prune(dense, x, out_dir=tmp_path, **settings)
    assert torch.equal(again.model(x), result.model(x))
    oneshot = {**settings, "schedule": "oneshot", "stages": ["finetune"], "redo": True}
    assert prune(dense, x, out_dir=tmp_path, **oneshot).plan == result.plan


def test_what_is_between_shrinks_to_the_plan(dense: nn.Module, settings: Settings) -> None:
    from rlprune.run.gradual import between, relative

    groups = rlprune.discover(dense, settings["data"].example_inputs)
    scores = {group.name: torch.randn(group.width) for group in groups.prunable}
    final = Plan.uniform(groups, 0.3, scores).drop(groups, [next(iter(groups.branches))])
    schedule = ScheduleSpec("gradual", rounds=4)
    plans = [between(groups, final, scores, schedule, number) for number in (1, 2, 3, 4)]
    assert plans[-1] == final
    before = Plan.dense_plan(groups)
    for plan in plans:
        plan.check(groups)
        assert all(set(plan.keep[name]) <= set(units) for name, units in before.keep.items())
        assert composed(before, relative(before, plan)) == plan
        before = plan
    with pytest.raises(ConfigError, match="schedule=gradual"):
        prune(
            dense, settings["data"].example_inputs,
            **{**settings, "schedule": "gradual", "finetune": None},
        )  # fmt: skip
