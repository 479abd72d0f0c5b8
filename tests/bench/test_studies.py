from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlprune.bench import evaluation, fidelity, speed
from rlprune.bench.plans import diverse
from rlprune.bench.tables import spearman, spearman_interval, spread
from rlprune.bench.workbench import open_workbench
from rlprune.cli.job import run as run_job
from rlprune.compaction import MaskedWorkspace
from rlprune.errors import CheckpointError, ConfigError
from rlprune.oneshot import mask
from rlprune.plan import Plan
from rlprune.report import markdown

Composed = Callable[..., dict[str, Any]]
FIDELITY = (
    "bench.plans=4",
    "bench.kinds=[kl,features]",
    "~bench.compensations.patches", "bench.good_evaluations=8", "bench.images=[32,64]",
    "evaluator.batch_size=32", "bench.finetune_images=256", "bench.finetune_epochs=1",
)  # fmt: skip


def test_spearman_by_hand() -> None:
    # ranks 1 2 3 4 against 1 3 2 4: 1 - 6 * (0 + 1 + 1 + 0) / (4 * 15) = 0.8
    assert spearman([1, 2, 3, 4], [10, 30, 20, 40]) == pytest.approx(0.8)
    # ties share their mean rank: 1, 2.5, 2.5, 4 against 1, 2, 3, 4 is 4.5 / sqrt(4.5 * 5)
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / np.sqrt(4.5 * 5.0))
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3]))
    low, high = spearman_interval(range(20), [v + 3 * (v % 2) for v in range(20)])
    assert 0.5 < low < high <= 1.0


def test_tables() -> None:
    assert markdown.table(("a", "b"), [("x", "1")]) == "| a | b |\n|---|---:|\n| x | 1 |"
    assert spread([], str) == "-"
    assert spread([3.0, 1.0, 2.0], lambda v: f"{v:.0f}") == "2 (1 to 3)"


def test_the_mask_is_renewed_for_every_plan(composed: Composed) -> None:
    job = open_workbench(composed("search")).job
    masked = MaskedWorkspace(job.groups)
    x = job.example_inputs
    for keep in (0.4, 0.8, 1.0):
        plan = Plan.uniform(job.groups, keep)
        reference = mask(job.dense, x, plan)
        with torch.no_grad():
            assert torch.equal(masked.build(plan)(x), reference(x))


def test_evaluation_times_the_same_score(composed: Composed) -> None:
    paths = evaluation.run(
        composed(
            "evaluation",
            "bench.plans=2",
            "bench.evaluations=6",
            "bench.agent=cem",
        )
    )
    found = json.loads(paths[1].read_text())
    assert found["difference"] < 0.05
    assert len(found["ways"]) == 4
    assert [entry["plans"] for entry in found["ways"].values()] == [2] * 4
    assert "with least_squares" in found["search_way"]
    assert sum(found["search"]["share"].values()) == pytest.approx(1.0, abs=0.02)
    assert found["search"]["evaluations"] == 6
    assert "| env and agent |" in paths[0].read_text()


def test_slow_ways_are_timed_on_fewer_plans() -> None:
    seen: dict[str, list[int]] = {"quick": [], "slow": []}

    def slow(widths: tuple[int, ...]) -> float:
        time.sleep(0.02)
        seen["slow"].append(widths[0])
        return 0.0

    def quick(widths: tuple[int, ...]) -> float:
        seen["quick"].append(widths[0])
        return 0.0

    plans = [(k,) for k in range(9)]
    times = evaluation.interleaved({"quick": quick, "slow": slow}, plans, seconds=0.05)
    assert seen == {"quick": list(range(9)), "slow": [0, 1, 2, 3]}
    assert [len(values) for values in times.values()] == [7, 2]


def test_plans_are_distinct_and_meet_the_budget(composed: Composed) -> None:
    problem = open_workbench(composed("fidelity")).evaluator()
    plans = diverse(problem, 9, 8, seed=0)
    assert len({widths for _, widths in plans}) == 9
    assert {kind for kind, _ in plans} >= {"uniform", "search", "independent", "smooth"}
    assert all(problem.violations(widths)["macs"] <= 0 for _, widths in plans)
    assert diverse(problem, 9, 8, seed=0) == plans


def test_fidelity_goes_on_where_it_was(composed: Composed, tmp_path: Path) -> None:
    config = composed("fidelity", *FIDELITY)
    paths = fidelity.run(config)
    found = json.loads(paths[1].read_text())
    # kinds, compensations, statistics, images
    assert len(found["rows"]) == 2 * 2 * 2 * 2
    assert len(found["plans"]) == 4
    assert all(-1 <= row["rho"] <= 1 for row in found["rows"] if row["rho"] is not None)
    assert all(row["seconds"] > 0 for row in found["rows"])
    folder = paths[0].parent
    gone = folder / "after" / "3-0.json"
    kept = folder / "scores" / "3.json"
    before, stamp = json.loads(gone.read_text()), kept.stat().st_mtime_ns
    gone.unlink()
    again = json.loads(fidelity.run(config)[1].read_text())
    assert json.loads(gone.read_text()) == before
    assert kept.stat().st_mtime_ns == stamp
    assert again["rows"] == found["rows"]
    with pytest.raises(CheckpointError, match="other settings"):
        fidelity.run(composed("fidelity", *FIDELITY, "finetune.lr=0.01"))


def test_fidelity_needs_samples_no_score_has_seen(composed: Composed) -> None:
    with pytest.raises(ConfigError, match=r"data\.holdout"):
        fidelity.run(composed("fidelity", "bench.images=[4096]"))
    with pytest.raises(ConfigError, match="quality 'beauty' is unknown"):
        fidelity.run(composed("fidelity", *FIDELITY, "bench.kinds=[beauty]"))


def test_speed_reads_run_folders(composed: Composed, tmp_path: Path) -> None:
    run = composed(
        "speed", "agent=uniform", "evaluations=1", "finetune=none", "export=[]",
        f"bench.runs=[{tmp_path / 'run'}]", "bench.repeats=3", "bench.threads=[1]",
        "bench.batch_sizes=[1,4]",
    )  # fmt: skip
    run_job(run, tmp_path / "run", redo=False)
    paths = speed.run(run)
    rows = json.loads(paths[1].read_text())["rows"]
    assert [(row["precision"], row["batch_size"]) for row in rows] == [
        ("float32", 1), ("float32", 4), ("bfloat16", 1), ("bfloat16", 4),
    ]  # fmt: skip
    assert all(0 < row["macs_share"] <= 0.5 and row["pruned_ms"] > 0 for row in rows)
    with pytest.raises(ConfigError, match=r"bench\.runs"):
        speed.run(composed("speed"))
    with pytest.raises(CheckpointError):
        speed.run(composed("speed", f"bench.runs=[{tmp_path}]"))


def test_the_module_reports_errors_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rlprune.bench", "speed"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert (
        done.stderr.strip() == "ConfigError: give the run folders to time: bench.runs=[outputs/...]"
    )


def test_merging_draws_every_line(composed: Composed) -> None:
    from rlprune.bench import merging

    config = composed("merging", "bench.ratios=[0,0.5]", "bench.split=holdout", "bench.images=200")
    paths = merging.run(config)
    found = json.loads(paths[2].read_text())
    assert paths[1].read_bytes()[:4] == b"\x89PNG"
    assert {way: line[0] for way, line in found["lines"].items()} == dict.fromkeys(
        config["bench"]["ways"], pytest.approx(found["dense"], abs=0.01)
    )
    assert found["lines"]["least squares"][1] > found["lines"]["pruned"][1]
    stamps = {path: path.stat().st_mtime_ns for path in paths[0].parent.glob("cells/*")}
    merging.run(config)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    with pytest.raises(ConfigError, match=r"bench\.ratios"):
        merging.run(composed("merging", "bench.ratios=[1.0]"))
