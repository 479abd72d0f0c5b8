from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rlprune.bench import main, peers, report, search
from rlprune.bench.cells import planned
from rlprune.bench.tuning import shortened
from rlprune.bench.workbench import Workbench, open_workbench
from rlprune.compaction import build
from rlprune.errors import CheckpointError, ConfigError
from rlprune.plan import Plan
from rlprune.tasks import Metric

Composed = Callable[..., dict[str, Any]]
SMALL = (
    "bench.agents=[uniform,random,cem]",
    "bench.evaluations=[4,8]",
    "bench.seeds=[0,1]",
)


def cells_of(out: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in out.glob("*/cells/*.json")}


def test_every_cell_counts_its_own_evaluations_and_meets_its_budget(
    composed: Composed, tmp_path: Path
) -> None:
    paths = search.run(composed("search", *SMALL))
    cells = cells_of(tmp_path / "out")
    assert len(cells) == 1 + 2 * 2 * 2
    for cell in cells.values():
        assert cell["unique"] == cell["evaluations"] == len(cell["curve"])
        budget = cell["budgets"]["macs"]
        assert budget["value"] <= budget["limit"] == pytest.approx(0.5 * budget["dense"])
        assert 0 <= cell["budgets"]["macs"]["slack"] < 0.05
        assert cell["curve"] == sorted(cell["curve"])
        assert cell["seconds"]["total"] >= cell["seconds"]["evaluations"] > 0
        plan = next((tmp_path / "out").glob(f"*/plans/{cell['plan']}.json"))
        assert Plan.from_json(plan.read_text()).widths == cell["widths"]
    # Random search does not look at how many evaluations it has: the shorter search is the start of
    # the longer one, whose evaluations were all in the common store.
    assert cells["random-4-0"]["curve"] == cells["random-8-0"]["curve"][:4]
    assert cells["random-8-0"]["seconds"]["replayed_evaluations"] >= 4
    names = {path.name for path in paths}
    assert names == {"report.md", "report.json", "search.png"}


def test_finished_cells_are_kept_and_others_run(composed: Composed, tmp_path: Path) -> None:
    search.run(composed("search", *SMALL))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*/cells/*.json")}
    more = (*SMALL[:2], "bench.seeds=[0,1,2]", "bench.redo=[cem]")
    search.run(composed("search", *more))
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*/cells/*.json")}
    changed = {path.stem for path, time in before.items() if after[path] != time}
    assert changed == {"cem-4-0", "cem-4-1", "cem-8-0", "cem-8-1"}
    assert len(after) == len(before) + 4


def test_an_agent_with_other_options_is_another_cell(composed: Composed, tmp_path: Path) -> None:
    tiny = ("bench.evaluations=[6]", "bench.seeds=[0]")
    search.run(composed("search", "bench.agents=[cem]", *tiny))
    plain = cells_of(tmp_path / "out")["cem-6-0"]
    search.run(composed("search", "bench.agents=[{name: cem, samples: 4, elites: 2}]", *tiny))
    assert cells_of(tmp_path / "out")["cem-6-0"]["agent"]["samples"] == 4
    assert plain["agent"]["samples"] != 4


def test_a_folder_of_another_score_is_refused(composed: Composed) -> None:
    tiny = ("bench.agents=[uniform]",)
    search.run(composed("search", *tiny))
    with pytest.raises(CheckpointError, match="another problem"):
        search.run(composed("search", "evaluator.quality=accuracy", *tiny))


def test_finetuning_is_one_recipe_and_one_training_per_plan(
    composed: Composed, tmp_path: Path
) -> None:
    paths = search.run(
        composed(
            "search", "bench.agents=[uniform,random]", "bench.evaluations=[3]",
            "bench.seeds=[0]", "bench.finetune=[3]", "bench.finetune_images=256",
            "bench.finetune_seeds=[0,5]", "finetune.epochs=1",
        )
    )  # fmt: skip
    cells = cells_of(tmp_path / "out")
    for cell in cells.values():
        found = cell["tuned"]
        assert 0 <= found["before"]["test"] <= 1
        assert [run["seed"] for run in found["runs"]] == [0, 5]
        first, second = found["runs"]
        assert first["test"] != second["test"] or first["holdout"] != second["holdout"]
        assert found["after"]["test"] == pytest.approx((first["test"] + second["test"]) / 2)
    tuned = list((tmp_path / "out").glob("*/tuned/*.json"))
    assert len(tuned) == 2 * len({cell["plan"] for cell in cells.values()})
    assert not list((tmp_path / "out").glob("*/tuned/*.training"))
    text = paths[0].read_text()
    assert "Dense network:" in text
    row = next(line for line in text.splitlines() if line.startswith("| random"))
    assert " - " not in row.rpartition("| random")[2].split("|")[5]


def test_missing_cells_are_named(composed: Composed, tmp_path: Path) -> None:
    search.run(composed("search", *SMALL))
    next((tmp_path / "out").glob("*/cells/cem-8-1.json")).unlink()
    text = report.write(tmp_path / "out")[0].read_text()
    assert "Missing (1 cells): cem/8/1." in text


def test_predicted_damage_is_held_against_every_plan(composed: Composed, tmp_path: Path) -> None:
    agents = "bench.agents=[random,{name: uniform, anchor: sensitivity, label: sensitivity}]"
    paths = search.run(composed("search", agents, "bench.evaluations=[40]", "bench.seeds=[0]"))
    found = json.loads(next((tmp_path / "out").glob("*/prediction.json")).read_text())
    cells = cells_of(tmp_path / "out")
    assert found["plans"] == 41
    assert found["rho"] > 0.5
    assert f"Spearman {found['rho']:.3f}" in paths[0].read_text()
    assert cells["sensitivity-1-0"]["widths"] != cells["random-40-0"]["widths"]


ACCURACY = Metric("accuracy", "accuracy", unit="%")


def test_quality_is_held_against_the_metric_after_fine_tuning() -> None:
    def cell(plan: int, quality: float, test: float | None, **more: Any) -> dict[str, Any]:
        after = {"holdout": 1 - test if test is not None else -quality, "test": test}
        return {"plan": str(plan), "quality": quality, "tuned": {"after": after}, **more}

    cells = [cell(k, -1.0 / (k + 1), 0.5 + k / 100) for k in range(6)]
    peer = {k: v for k, v in cell(9, 5.0, 0.1).items() if k != "plan"}
    untuned = {"plan": "8", "quality": 3.0}
    assert report.agreement([*cells, cells[0], peer, untuned], ACCURACY) == {"plans": 6, "rho": 1.0}
    assert report.agreement(cells[:5], ACCURACY) is None
    unlabelled = [cell(k, -1.0 / (k + 1), None) for k in range(6)]
    assert report.agreement(unlabelled, ACCURACY) == {"plans": 6, "rho": pytest.approx(-1.0)}


def test_wrong_cells_are_named(composed: Composed) -> None:
    options = composed("search")["bench"]
    with pytest.raises(ConfigError, match="simulated_annealing"):
        planned({**options, "agents": ["simulated_annealing"]})
    with pytest.raises(ConfigError, match="label of its own"):
        planned({**options, "agents": ["cem", {"name": "cem", "samples": 24}]})
    with pytest.raises(ConfigError, match="no cell"):
        planned({**options, "agents": []})
    with pytest.raises(ConfigError, match="is none of"):
        peers.planned({**options, "peers": ["gradient_descent"]})
    with pytest.raises(ConfigError, match="needs a recipe"):
        search.run(composed("search", "bench.finetune=[4]", "finetune=none"))
    with pytest.raises(ConfigError, match="finetune_seeds is empty"):
        search.run(composed("search", "bench.finetune_seeds=[]"))


def test_a_report_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no finished cell"):
        main(["report", str(tmp_path)])


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers._LIBRARIES, "torch", ("no_such_library", "torch-pruning"))
    with pytest.raises(peers.PeerError, match=r"rlprune\[bench\]"):
        peers.planned({"peers": ["torch_pruning_taylor"]})


@pytest.fixture
def bench(composed: Composed) -> Workbench:
    return open_workbench(composed("search", "compensation=bn"))


def test_widths_are_read_from_tensor_sizes(bench: Workbench) -> None:
    groups = bench.job.groups
    plan = Plan.uniform(groups, 0.6)
    assert peers.widths_of(bench, build(groups, plan)) == list(plan.widths.values())
    other = nn.Sequential(nn.Linear(3, 3))
    assert peers.widths_of(bench, other) is None


def test_widths_that_contradict_each_other_are_not_read(bench: Workbench) -> None:
    groups = bench.job.groups
    small = build(groups, Plan.uniform(groups, 0.6))
    part = next(p for p in groups.slices(groups.prunable[0]) if p.role == "tied")
    path, _, attribute = part.tensor.rpartition(".")
    module = small.get_submodule(path)
    tensor = getattr(module, attribute)
    setattr(module, attribute, nn.Parameter(tensor[:-1].detach().clone()))
    assert peers.widths_of(bench, small) is None


def test_a_peer_that_fails_leaves_its_reason(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> tuple[nn.Module, int]:
        raise peers.PeerError("Torch-Pruning fails on this network: ZeroDivisionError")

    monkeypatch.setitem(peers.PEERS, "torch_pruning_taylor", fail)
    assert "ZeroDivisionError" in peers.run_peer("torch_pruning_taylor", bench)["error"]


def test_a_peer_is_measured_as_it_is_and_as_a_plan(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = bench.job.groups
    plan = Plan.uniform(groups, 0.6)
    monkeypatch.setitem(peers.PEERS, "torch_pruning_magnitude", lambda *_: (build(groups, plan), 0))
    cell = peers.run_peer("torch_pruning_magnitude", bench)
    assert cell["widths"] == plan.widths
    assert cell["quality"] == pytest.approx(cell["quality_as_plan"], abs=1e-3)
    assert report.summarize([cell])[0]["label"] == "torch_pruning_magnitude"


def test_short_epochs_draw_from_the_whole_training_split(bench: Workbench) -> None:
    data = bench.data
    short = shortened(data, 128)
    assert shortened(data, None) is data
    first, second = (torch.cat([x for x, _ in short.train_batches(epoch, 32)]) for epoch in (1, 2))
    assert len(first) == len(second) == 128
    assert not torch.equal(first, second)
    assert short.train_size == data.train_size
    assert repr(short) != repr(data)
    assert copy.copy(short).steps_per_epoch(32) == 4
