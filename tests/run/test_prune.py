from __future__ import annotations

import copy
import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rlprune
from rlprune.budgets import count_bytes, count_macs, count_params
from rlprune.errors import BudgetError, CheckpointError, ConfigError, InfeasibleBudgetError


def wide_layers(model: nn.Module, example_inputs: Any) -> float:
    """Tiles of four channels: a staircase no gradient can climb down."""
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    return sum(-(-m.out_channels // 4) for m in convolutions)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrappers_are_taken_off(dense: nn.Module, settings: dict[str, Any], wrap: Any) -> None:
    more = {"agent": "random", "evaluations": 2, "finetune": None, "budgets": {"macs": 0.6}}
    x = settings["data"].example_inputs
    result = rlprune.prune(wrap(dense), x, **(settings | more))
    assert type(result.model) is type(dense)
    assert count_macs(result.model, x) <= 0.6 * count_macs(dense, x)


def test_the_whole_job_leaves_every_artifact_and_meets_every_budget(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    x = settings["data"].example_inputs
    before, training = weights(dense), dense.training
    tiles = 0.7 * wide_layers(dense, x)
    settings["budgets"] = {
        "macs": 0.6,
        "params": "80%",
        "tiles": rlprune.Budget(fn=wide_layers, limit=tiles),
    }
    settings["exports"] = ("onnx", "torch_export")
    result = rlprune.prune(dense, x, out_dir=tmp_path / "run", **settings)

    assert same(weights(dense), before)
    assert dense.training == training
    assert type(result.model) is type(dense)
    assert count_macs(result.model, x) <= 0.6 * count_macs(dense, x)
    assert count_params(result.model) <= 0.8 * count_params(dense)
    assert wide_layers(result.model, x) <= tiles
    assert result.costs["macs"] == count_macs(result.model, x)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {
        "plan.json", "masks.safetensors", "model.safetensors", "model.onnx", "model.pt2",
        "report.json", "report.html", "history.csv", "finetune.csv", "tensorboard",
    }  # fmt: skip
    assert any((tmp_path / "run" / "tensorboard").glob("events.*"))

    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report == result.report
    assert set(report["dense"]) >= {"accuracy", "params", "macs", "latency_ms", "bytes"}
    assert report["pruned"]["macs"] == result.costs["macs"]
    assert report["pruned"]["bytes"] == count_bytes(result.model)
    assert report["dense"]["params"] == count_params(dense)
    assert 0 <= report["pruned_before_finetune"]["accuracy"] <= 1
    for budget in report["budgets"].values():
        assert budget["value"] <= budget["limit"] < budget["dense"]
    assert report["budgets"]["tiles"]["limit"] == pytest.approx(tiles)
    assert report["evaluations"] == 6 == len(result.history)

    with open(tmp_path / "run" / "history.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 6
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 3
    assert "http" not in page.replace("http-equiv", "")


def test_a_finished_run_is_read_back_not_repeated(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    x = settings["data"].example_inputs
    first = rlprune.prune(dense, x, out_dir=tmp_path, **settings)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    again = rlprune.prune(dense, x, out_dir=tmp_path, **settings)
    assert times == {
        path: path.stat().st_mtime_ns
        for path in tmp_path.glob("*.safetensors")
        if path.name != "example_inputs.safetensors"
    } | {k: v for k, v in times.items() if k.name == "example_inputs.safetensors"}
    assert same(weights(first.model), weights(again.model))
    assert again.report == first.report
    assert again.history == first.history


def test_same_seed_same_result_and_stages_one_by_one(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    x = settings["data"].example_inputs
    whole = rlprune.prune(dense, x, **settings)
    assert whole.out_dir is None
    with pytest.raises(CheckpointError, match="needs the search stage"):
        rlprune.prune(dense, x, out_dir=tmp_path, stages=("finetune",), **settings)
    searched = rlprune.prune(dense, x, out_dir=tmp_path, stages=("search",), **settings)
    assert searched.model is None
    tuned = rlprune.prune(dense, x, out_dir=tmp_path, stages=("finetune",), **settings)
    assert searched.plan == tuned.plan == whole.plan
    assert same(weights(tuned.model), weights(whole.model))


def test_a_folder_with_another_run_is_refused_unless_redone(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    x = settings["data"].example_inputs
    first = rlprune.prune(dense, x, out_dir=tmp_path, **settings)
    longer = {**settings, "finetune": rlprune.FineTune(epochs=3, lr=0.02)}
    with pytest.raises(ConfigError, match=r"recipe\.epochs 2 -> 3"):
        rlprune.prune(dense, x, out_dir=tmp_path, **longer)
    second = rlprune.prune(dense, x, out_dir=tmp_path, redo=True, **longer)
    assert second.plan == first.plan
    assert len(second.report["finetune"]["history"]) == 4
    tighter = {**longer, "budgets": {"macs": 0.4}}
    third = rlprune.prune(dense, x, out_dir=tmp_path, redo=True, **tighter)
    assert third.costs["macs"] <= 0.4 * count_macs(dense, x)
    assert (tmp_path / "evaluations.1.jsonl").exists()


def test_a_score_is_enough_and_fine_tuning_may_be_left_out(dense: nn.Module) -> None:
    from rlprune.data import load

    x, y = load("digits").holdout

    def score(model: nn.Module) -> float:
        return float((model(x).argmax(1) == y).float().mean())

    result = rlprune.prune(
        dense, x[:1], score=score, budgets={"params": 0.7}, agent="uniform", evaluations=3,
        latency={"repeats": 3}, progress=False,
    )  # fmt: skip
    assert result.report["pruned"]["score"] == pytest.approx(score(result.model))
    assert "accuracy" not in result.report["pruned"]
    assert result.costs["params"] == count_params(result.model) <= 0.7 * count_params(dense)
    assert result.report["objective"] == result.report["pruned"]["score"]


def test_a_measured_latency_budget_holds_on_the_result() -> None:
    """On a network whose time goes into arithmetic; a tiny one would measure overhead.

    The second budget keeps the latency well below its limit, so that a busy machine cannot decide.
    """
    layers = [
        nn.Conv2d(8, 96, 3, padding=1), nn.ReLU(), nn.Conv2d(96, 96, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10),
    ]  # fmt: skip
    x = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    result = rlprune.prune(
        nn.Sequential(*layers), x, score=lambda model: -count_params(model), agent="uniform",
        budgets={"latency": rlprune.budgets.Latency(0.75, batch_size=16), "macs": 0.25},
        evaluations=2, latency={"repeats": 3}, progress=False,
    )  # fmt: skip
    budget = result.report["budgets"]["latency"]
    assert budget["unit"] == "ms"
    assert budget["value"] <= budget["limit"] < budget["dense"]


def test_unreachable_budgets_are_refused_before_the_search(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings["budgets"] = {"params": 0.001}
    with pytest.raises(InfeasibleBudgetError, match="params"):
        rlprune.prune(dense, settings["data"].example_inputs, out_dir=tmp_path, **settings)
    assert not (tmp_path / "plan.json").exists()


def test_a_raising_budget_function_names_itself_and_keeps_finished_work(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    x = settings["data"].example_inputs
    calls = []

    def energy(model: nn.Module, example_inputs: Any) -> float:
        calls.append(None)
        if len(calls) == 12:
            raise OSError("the meter is unplugged")
        return count_params(model)

    settings["budgets"] = {"energy": rlprune.Budget(fn=energy, limit="70%")}
    with pytest.raises(BudgetError, match=r"energy.*the meter is unplugged"):
        rlprune.prune(dense, x, out_dir=tmp_path, **settings)
    assert len((tmp_path / "evaluations.jsonl").read_text().splitlines()) > 1
    interrupted = rlprune.prune(dense, x, out_dir=tmp_path, **settings)
    calls[:] = [None] * 100
    assert interrupted.plan == rlprune.prune(dense, x, **settings).plan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": None}, "give data=.*or score="),
        ({"evaluations": 0}, "evaluations must be at least 1"),
        ({"stages": ("train",)}, "stage 'train' is unknown"),
        ({"exports": ("coreml",)}, "export 'coreml' is unknown"),
        ({"agent": "sarsa"}, "agent 'sarsa' is unknown"),
        ({"evaluator": {"image": 3}}, "image"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"finetune": "yes"}, "must be a FineTune"),
    ],
)
def test_wrong_arguments_are_told_at_once(
    dense: nn.Module, settings: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    arguments = {**settings, **changes}
    if changes == {"data": None}:
        arguments["finetune"] = None
    with pytest.raises(ConfigError, match=message):
        rlprune.prune(dense, settings["data"].example_inputs, **arguments)


def test_every_agent_runs_the_whole_job(dense: nn.Module, settings: dict[str, Any]) -> None:
    from rlprune.search import AGENTS

    x = settings["data"].example_inputs
    settings = {**settings, "evaluations": 8, "finetune": None}
    for agent in AGENTS:
        options = {"name": agent, **({"steps": 8} if agent == "gates" else {})}
        result = rlprune.prune(copy.deepcopy(dense), x, **{**settings, "agent": options})
        assert result.costs["macs"] <= 0.6 * count_macs(dense, x), agent
