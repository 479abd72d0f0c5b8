"""Runs that differ in their seeds alone are one line, with mean and spread."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from rlprune.report import sweep
from rlprune.report.console import show_runs

SPECS = {"50%": 0.92, "30%": 0.88}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six finished runs: two limits, three seeds."""
    for limit, accuracy in SPECS.items():
        for seed in range(3):
            run = tmp_path / f"{limit[:2]}-{seed}"
            run.mkdir()
            agent = {"settings": {"search": {"agent": {"name": "ppo_lagrangian"}}}}
            (run / "run.json").write_text(json.dumps({"factory": {"name": "resnet56"}, **agent}))
            dense = {"accuracy": 0.94, "params": 8e5, "macs": 1.2e8, "latency_ms": 5.0}
            small = {"accuracy": accuracy + 0.01 * seed, "params": 4e5, "macs": 6e7}
            small["latency_ms"] = 3.0
            macs = {"value": 6e7, "limit": 6e7, "unit": "MACs", "spec": limit, "dense": 1.2e8}
            metric = {"name": "accuracy", "label": "test accuracy", "unit": "%"}
            report = {
                "dense": dense, "pruned": small, "pruned_before_finetune": small, "seed": seed,
                "budgets": {"macs": macs}, "evaluations": 300, "quality": -0.1, "objective": 0.9,
                "metrics": [{**metric, "higher_is_better": True}], "seconds": 60.0,
                "data": "Data('cifar10')",
            }  # fmt: skip
            (run / "report.json").write_text(json.dumps(report))
    return tmp_path


def test_a_setting_is_a_line_with_mean_and_spread(folder: Path) -> None:
    rows, unfinished = sweep.collect(folder)
    assert not unfinished
    head, lines = sweep.settings(rows)
    assert head == ("limits", "runs", "pruned", "change", "params", "MACs")
    assert lines == [
        ("macs 30%", "3", "89.00 ± 1.00", "-5.00 ± 1.00", "50.0 ± 0.0 %", "50.0 ± 0.0 %"),
        ("macs 50%", "3", "93.00 ± 1.00", "-1.00 ± 1.00", "50.0 ± 0.0 %", "50.0 ± 0.0 %"),
    ]
    assert sweep.settings(rows[::3])[1] == [], "every setting was run once"
    assert "89.00 ± 1.00" in sweep.write(folder, rows)[2].read_text(encoding="utf-8")


def test_tables_fit_a_terminal_of_80_columns(folder: Path) -> None:
    rows, _ = sweep.collect(folder)
    text = io.StringIO()
    console = Console(file=text, width=80)
    show_runs(console, *sweep.settings(rows))
    shown = sweep.terminal(rows)
    assert shown == ("run", "limits", "pruned", "change", "params", "MACs")
    show_runs(console, shown, sweep.cells(rows, shown))
    told = text.getvalue().splitlines()
    assert max(map(len, told)) <= 80
    assert len([line for line in told if line.startswith("│")]) == 2 + 6, "a line each"
