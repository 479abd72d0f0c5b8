"""Callbacks are told what happens, and may end the search; no result depends on them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import rlprune
from rlprune.callbacks import Callback, JsonLogger, WandbLogger, resolve
from rlprune.cli.job import run as run_job
from rlprune.errors import ConfigError
from rlprune.run import compose


class Listener(Callback):
    """Keeps what it is told, and ends the search after some evaluations."""

    def __init__(self, most: int = 1000) -> None:
        self.most, self.heard = most, []  # type: ignore[var-annotated]

    def on_start(self, told: Mapping[str, Any]) -> None:
        self.heard.append(("start", told["run"], sorted(told["settings"])))

    def on_evaluation(self, row: Mapping[str, float]) -> bool:
        self.heard.append(("evaluation", row["evaluation"]))
        return row["evaluation"] >= self.most

    def on_epoch(self, row: Mapping[str, float]) -> None:
        self.heard.append(("epoch", row["epoch"]))

    def on_stage(self, stage: str, result: Mapping[str, Any]) -> None:
        self.heard.append(("stage", stage))

    def on_end(self) -> None:
        self.heard.append(("end",))


def test_a_run_tells_what_it_does_and_stops_when_asked(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    x, listener, log = settings["data"].example_inputs, Listener(), tmp_path / "log.jsonl"
    told = rlprune.prune(
        dense, x, **settings, callbacks=[listener, JsonLogger(log)], out_dir=tmp_path / "run"
    )
    kinds = [item[0] for item in listener.heard]
    assert kinds == [
        "start", *["evaluation"] * 6, "stage", *["epoch"] * 2, "stage", "stage", "end"
    ]  # fmt: skip
    assert listener.heard[0][1:] == ("run", ["export", "finetune", "report", "search"])
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["event"] for line in lines] == [kind for kind in kinds if kind != "end"]
    assert lines[1]["quality"] == told.history[0]["quality"]

    again = Listener()
    quiet = rlprune.prune(dense, x, **settings, callbacks=again, out_dir=tmp_path / "run")
    assert [item[0] for item in again.heard] == ["start", "end"]
    assert quiet.report == told.report

    stopping = Listener(most=3)
    short = rlprune.prune(dense, x, **{**settings, "finetune": None}, callbacks=stopping)
    assert len(short.history) == 3
    assert short.report["evaluations"] == 3


def test_the_command_line_takes_callbacks_by_path(tmp_path: Path) -> None:
    log = tmp_path / "log"
    config = compose(
        ["pretrain.epochs=1", "evaluations=2", "agent=uniform", "model.width=8", "export=[]",
         "finetune=none", "stage=search", f"pretrained_dir={tmp_path}",
         f"callbacks=[{{_target_: rlprune.callbacks.JsonLogger, path: {log}}}]"]
    )  # fmt: skip
    run_job(config, tmp_path / "run", redo=False)
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events == ["start", "evaluation", "stage"]


def test_what_is_no_callback_is_named() -> None:
    assert [type(c) for c in resolve([{"name": "json", "path": "x"}])] == [JsonLogger]
    for wrong, message in (
        ([3], "callback 3: expected"),
        ("jsno", "did you mean 'json'"),
        ({"_target_": "rlprune.callbacks.JsonLogger", "file": 1}, "unexpected keyword"),
        ("os.getcwd", "expected a rlprune"),
    ):
        with pytest.raises(ConfigError, match=message):
            resolve(wrong)


def test_weights_and_biases_gets_every_row(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    found: dict[str, Any] = {}
    logger = WandbLogger(mode="offline", dir=str(tmp_path))
    end = logger.on_end

    def look() -> None:
        found.update(logger._run.summary)
        end()

    logger.on_end = look  # type: ignore[method-assign]
    result = rlprune.prune(dense, settings["data"].example_inputs, **settings, callbacks=logger)
    assert found["search/quality"] == result.history[-1]["quality"]
    assert found["finetune/epoch"] == 2
    assert found["pruned/accuracy"] == result.report["pruned"]["accuracy"]
    assert wandb.run is None
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
