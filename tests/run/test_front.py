"""A list of limits in one run: folders, the front, resuming, changing the list."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rlprune
from rlprune import FineTune
from rlprune.budgets import count_macs
from rlprune.errors import CheckpointError, ConfigError, InfeasibleBudgetError
from rlprune.report import front as front_report
from rlprune.run import search_stage

LABELS = ("macs_80", "macs_60", "macs_40")


@pytest.fixture
def settings(settings: dict[str, Any]) -> dict[str, Any]:
    one_epoch = FineTune(epochs=1, lr=0.02)
    return {**settings, "budgets": {"macs": [0.6, 0.8]}, "finetune": one_epoch}


def stamps(folder: Path) -> dict[str, int]:
    """When every stage of every limit was finished."""
    files = sorted(folder.glob("*/stages/*.json"))
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def test_one_run_leaves_a_run_folder_per_limit_and_the_front(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    data, x = settings["data"], settings["data"].example_inputs
    settings["budgets"] = {"macs": [0.8, 0.4, 0.6]}
    result = rlprune.prune(dense, x, out_dir=tmp_path, front_later=0.5, **settings)
    assert [point.out_dir for point in result.front] == [tmp_path / label for label in LABELS]
    for point, share in zip(result.front, (0.8, 0.6, 0.4), strict=True):
        assert count_macs(point.model, x) <= share * count_macs(dense, x)
        again = rlprune.load(point.out_dir)
        batch = data.holdout[0][:8]
        assert torch.equal(again(batch), point.model(batch))
        assert (point.out_dir / "report.html").is_file()
    assert result.model is result.front[-1].model
    assert [point.report["evaluations"] for point in result.front] == [6, 3, 3]
    assert len((tmp_path / "evaluations.jsonl").read_text().splitlines()) > 12

    front = json.loads((tmp_path / "front.json").read_text())
    assert front == result.report
    assert front["evaluations"] == 12
    assert front["dense"]["cost"] == count_macs(dense, x)
    assert [p["limit"] for p in front["points"]] == ["80%", "60%", "40%"]
    for point, shown in zip(result.front, front["points"], strict=True):
        assert shown["cost"] == point.costs["macs"] <= shown["limit_value"]
        assert shown["after"] == point.report["pruned"]["accuracy"]
        assert shown["before"] == point.report["pruned_before_finetune"]["accuracy"]
    assert front["objective"] == pytest.approx(
        sum(point.report["objective"] for point in result.front) / 3
    )
    table = (tmp_path / "front.md").read_text()
    assert len(re.findall(r"^\| macs \d0% \|", table, flags=re.M)) == 3
    assert (tmp_path / "front.png").stat().st_size > 5000
    assert 'href="macs_60/report.html"' in (tmp_path / "front.html").read_text()
    with pytest.raises(CheckpointError, match=r"several limits; load one of .*macs_40"):
        rlprune.load(tmp_path)

    before = stamps(tmp_path)
    rlprune.prune(dense, x, out_dir=tmp_path, front_later=0.5, **settings)
    assert stamps(tmp_path) == before, "nothing that is done is done again"


def test_interrupted_between_any_two_stages_a_front_ends_with_the_same_networks(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = settings["data"].example_inputs
    settings["stages"] = ("search", "finetune")
    whole = rlprune.prune(dense, x, out_dir=tmp_path / "whole", **settings)
    cut = tmp_path / "cut"
    write_found = search_stage.write_found
    calls = 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return write_found(*arguments)

    monkeypatch.setattr("rlprune.run.front_run.write_found", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rlprune.prune(dense, x, out_dir=cut, **settings)
    assert (cut / "macs_80" / "model.safetensors").exists()
    assert not (cut / "macs_60" / "plan.json").exists()
    size = (cut / "evaluations.jsonl").stat().st_size
    first = stamps(cut)
    rlprune.prune(dense, x, out_dir=cut, **settings)
    assert first.items() <= stamps(cut).items()
    assert (cut / "evaluations.jsonl").stat().st_size == size
    for point in whole.front:
        for name in ("plan.json", "compacted.safetensors", "model.safetensors"):
            made = (cut / point.out_dir.name / name).read_bytes()
            assert made == (point.out_dir / name).read_bytes(), name


def test_the_folder_of_a_limit_goes_on_as_a_run_of_its_own(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    x = settings["data"].example_inputs
    rlprune.prune(dense, x, out_dir=tmp_path, **settings)
    kept = {k: v for k, v in stamps(tmp_path).items() if k.endswith("search.json")}
    own = {**settings, "budgets": {"macs": 0.6}, "evaluations": 3}
    own["finetune"] = FineTune(epochs=2, lr=0.02)
    longer = rlprune.prune(dense, x, out_dir=tmp_path / "macs_60", redo=True, **own)
    assert len(longer.report["finetune"]["history"]) == 3
    assert kept.items() <= stamps(tmp_path).items()
    shown = front_report.refresh(tmp_path)["points"][1]
    assert shown["after"] == longer.report["pruned"]["accuracy"]


def test_a_longer_list_keeps_what_was_evaluated_and_another_one_must_be_asked_for(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    x = settings["data"].example_inputs
    settings["stages"] = ("search",)
    first = rlprune.prune(dense, x, out_dir=tmp_path, **{**settings, "budgets": {"macs": [0.8]}})
    assert [point.out_dir.name for point in first.front] == ["macs_80"]
    lines = (tmp_path / "evaluations.jsonl").read_text().splitlines()
    with pytest.raises(ConfigError, match=r"other settings .*front.limits.*redo=True"):
        rlprune.prune(dense, x, out_dir=tmp_path, **settings)
    rlprune.prune(dense, x, out_dir=tmp_path, redo=True, **settings)
    longer = (tmp_path / "evaluations.jsonl").read_text().splitlines()
    assert longer[: len(lines)] == lines
    record = json.loads((tmp_path / "macs_80" / "stages" / "search.json").read_text())
    assert record["result"]["front"]["limits"] == ["80%", "60%"]


def test_lists_that_cannot_be_met_or_read_are_refused_at_once(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    def prune(**changed: Any) -> None:
        rlprune.prune(
            dense, settings["data"].example_inputs, out_dir=tmp_path, **{**settings, **changed}
        )

    with pytest.raises(ConfigError, match="only one budget may have a list"):
        prune(budgets={"macs": [0.5], "params": [0.5]})
    with pytest.raises(ConfigError, match="later must be in"):
        prune(front_later=1.5)
    with pytest.raises(InfeasibleBudgetError, match="'macs': no plan meets"):
        prune(budgets={"macs": [0.8, 1e-6]})
    assert not list(tmp_path.glob("*/plan.json"))


def test_a_run_that_starts_from_another_keeps_the_policy_it_began_with(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    x = settings["data"].example_inputs
    small = {"name": "ppo_lagrangian", "proposals": 16, "warmup": 4, "epochs": 2}
    settings.update(budgets={"macs": 0.6}, finetune=None, evaluations=12)
    only_search = {**settings, "agent": small, "stages": ("search",)}
    rlprune.prune(dense, x, out_dir=tmp_path / "first", **only_search)
    settings["agent"] = {**small, "start": str(tmp_path / "first")}
    settings["budgets"] = {"macs": 0.4}
    second = rlprune.prune(dense, x, out_dir=tmp_path / "second", **settings)
    assert second.report["start"] == str(tmp_path / "first")
    assert f"going on from {tmp_path / 'first'}" in (second.out_dir / "report.html").read_text()
    saved = json.loads((second.out_dir / "agent" / "agent.json").read_text())
    assert saved["origin"] == str(tmp_path / "first")

    (tmp_path / "first").rename(tmp_path / "elsewhere")
    (second.out_dir / "stages" / "search.json").unlink()
    settings["stages"] = ("search",)
    again = rlprune.prune(dense, x, out_dir=second.out_dir, **settings)
    assert again.plan == second.plan
    assert json.loads((second.out_dir / "start" / "origin.json").read_text())["folder"] == str(
        tmp_path / "first"
    )
    with pytest.raises(CheckpointError, match="cannot read a saved agent"):
        rlprune.prune(dense, x, out_dir=tmp_path / "third", **settings)
