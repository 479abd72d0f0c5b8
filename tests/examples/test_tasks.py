"""One script per task, run end to end on real data in a small setting."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent

SMALL = {
    "prune_text_classifier": ["--epochs=2", "--evaluations=6", "--width=32"],
    "prune_language_model": [
        "--epochs=1", "--evaluations=6", "--width=32", "--limit=60000", "--length=64",
    ],
    "prune_regression": ["--epochs=5", "--evaluations=8"],
    "prune_segmentation": [
        "--epochs=4", "--evaluations=6", "--width=8", "--images=200",
    ],
}  # fmt: skip
DECIDES = {
    "prune_text_classifier": ("accuracy", 0.4),
    "prune_language_model": ("perplexity", -60.0),
    "prune_regression": ("r2", 0.3),
    "prune_segmentation": ("mean_iou", 0.55),
}
"""Metric of every script, and what it reaches at least; a guess reaches less."""


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_task_end_to_end(name: str, tmp_path: Path) -> None:
    report = script(name).main([*SMALL[name], f"--out={tmp_path / 'run'}"])
    metric, least = DECIDES[name]
    sign = -1.0 if least < 0 else 1.0
    assert sign * report["pruned"][metric] > least
    assert report["pruned"][f"holdout_{metric}"] != report["dense"][f"holdout_{metric}"]
    assert all(budget["value"] <= budget["limit"] for budget in report["budgets"].values())
    assert report["finetune"]["history"][-1][f"holdout_{metric}"] == pytest.approx(
        report["pruned"][f"holdout_{metric}"], rel=1e-3
    )
    columns = [column["name"] for column in report["metrics"]]
    assert metric in columns
    assert columns[len(columns) // 2].startswith("holdout_")
    page = (tmp_path / "run" / "report.html").read_text()
    assert next(c["label"] for c in report["metrics"]) in page
