"""Tasks and their data from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlprune.data import load
from rlprune.run.config import compose
from tests.cli.conftest import Cli

QUICK = (
    "pretrain=adamw", "pretrain.epochs=4", "finetune=adamw", "finetune.epochs=1", "agent=random",
    "evaluations=4", "evaluator=quick", "export=[]", "latency.repeats=3", "threads=1",
)  # fmt: skip


def test_a_text_classifier_from_a_file(cli: Cli, tmp_path: Path) -> None:
    kinds = {"weather": "it rains snow and wind blow", "food": "we cook soup bread and cake"}
    lines = [
        f"{label} {' '.join(words.split()[at % 3 :])} number {at}"
        for at in range(60)
        for label, words in kinds.items()
    ]
    (tmp_path / "texts").write_text("\n".join(lines), encoding="utf-8")
    done = cli(
        "model=text_transformer", "model.width=16", "task=text_classification", "data=text",
        "data.train=texts", "budget=params", "budget.params=0.9", "hydra.run.dir=run", *QUICK,
        tiny=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["pruned"]["accuracy"] > 0.9
    assert report["task"] == "text_classification"
    again = cli("report", "run", tiny=False)
    assert "test accuracy" in (tmp_path / "run" / "sweep.html").read_text()
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("overrides", "task", "metric"),
    [
        (["data=tabular", "data.bundled=diabetes"], "regression", "r2"),
        (["data=tabular", "data.bundled=wine"], "classification", "accuracy"),
        (["data=text_file", f"data.train={__file__}", "data.length=16"], "language_modeling", "p"),
        (["data=digits", "task=classification"], "classification", "accuracy"),
    ],
)
def test_data_know_their_task(overrides: list[str], task: str, metric: str) -> None:
    config = compose(overrides)
    data = load(**config["data"]).for_task(config["task"])
    assert data.task.name == task
    assert data.task.metric.name.startswith(metric)
