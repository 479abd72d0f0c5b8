from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rlprune.cli import main

from .conftest import TINY, Cli, environment

ENERGY = """
def energy(model, example_inputs, volts=1.0):
    return volts * sum(p.numel() for p in model.parameters())

def silent(model, example_inputs):
    return float("nan")
"""


def only_run(folder: Path) -> Path:
    (report,) = folder.rglob("run.json")
    return report.parent


def test_a_run_with_a_budget_of_ones_own_then_report_then_another_recipe(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "my_pkg.py").write_text(ENERGY)
    done = cli("+budget.energy._target_=my_pkg.energy", "+budget.energy.limit=80%",
               "+budget.energy.volts=2.0")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    run = only_run(tmp_path)
    report = json.loads((run / "report.json").read_text())
    assert report["budgets"]["energy"]["value"] == 2 * report["pruned"]["params"]
    assert (run / ".hydra" / "config.yaml").exists()
    assert run.relative_to(tmp_path).parts[0] == "outputs"

    again = cli(f"run={run}", "stage=finetune", "finetune.epochs=2", tiny=False)
    assert again.returncode == 0, again.stderr
    assert "recipe.epochs 1 -> 2" in again.stderr
    assert "search: done before, kept" in again.stderr
    assert len((run / "finetune.csv").read_text().splitlines()) == 4

    finish = cli(f"run={run}", "finetune.epochs=2", tiny=False)
    assert finish.returncode == 0, finish.stderr
    report = json.loads((run / "report.json").read_text())
    assert len(report["finetune"]["history"]) == 3
    assert len(list(tmp_path.rglob("run.json"))) == 1


def test_a_sweep_and_its_report(cli: Cli, tmp_path: Path) -> None:
    done = cli("-m", "budget.macs.limit=50%,70%", "hydra.sweep.dir=outputs/sweep")
    assert done.returncode == 0, done.stderr
    gathered = cli("report", "outputs/sweep", tiny=False)
    assert gathered.returncode == 0, gathered.stderr
    assert "macs" in gathered.stdout
    with open(tmp_path / "outputs" / "sweep" / "sweep.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["0", "1"]
    assert 0.4 < float(rows[0]["macs_share"]) <= 0.5 < float(rows[1]["macs_share"]) <= 0.7
    assert (tmp_path / "outputs" / "sweep" / "sweep.png").stat().st_size > 5000
    page = (tmp_path / "outputs" / "sweep" / "sweep.html").read_text()
    assert "data:image/png;base64," in page


def test_discover_lists_frozen_groups_with_the_reason(cli: Cli) -> None:
    done = cli("discover", "model=vgg11", "--shape", "3x32x32", tiny=False)
    assert done.returncode == 0, done.stderr
    assert "features.0" in done.stdout
    assert "output" in done.stdout


MISTAKES = [
    (["budget=macs_51"], "Could not find 'budget/macs_51'"),
    (["model=vgg17"], "Could not find 'model/vgg17'"),
    (["model.name=digits_cmm"], "unknown model 'digits_cmm'; did you mean digits_cnn"),
    (["evaluation=3"], "evaluation"),
    (["budget.macs.limit=-1"], "'macs'"),
    (["budget=custom"], "no budget given"),
    (["+budget.energy._target_=no_such_pkg.energy", "+budget.energy.limit=1"], "no_such_pkg"),
    (["data=imagefolder", "data.root=nowhere"], "image folder nowhere does not exist"),
    (["data=imagefolder"], "data.root"),
    (["model.checkpoint=missing.pt"], "missing.pt"),
    (["run=outputs/nowhere"], "there is no such folder"),
    (["stage=train"], "did you mean 'pretrain'"),
    (["finetune.epochs=-1"], "epochs=-1: must be 0 or more"),
    (["device=tpu9"], "tpu9"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES]
)
def test_a_mistake_is_told_in_one_message(
    arguments: list[str],
    message: str,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    quiet = ("hydra/job_logging=none", "hydra/hydra_logging=none")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    line = ["rlprune", *TINY, f"pretrained_dir={trained}", *quiet, *arguments]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as exited:
        main()
    assert exited.value.code == 1
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["+budget.nan._target_=my_pkg.silent", "+budget.nan.limit=1"], "returned nan"),
        (["budget=custom", "+budget.params=0.001"], "params"),
    ],
    ids=["raising", "infeasible"],
)
def test_a_budget_that_fails_ends_the_process_with_its_name(
    cli: Cli, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "my_pkg.py").write_text(ENERGY)
    done = cli(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_shows_groups_and_examples(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rlprune", "--help"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for text in ("rlprune report", "budget:", "ppo_lagrangian", "+budget.energy._target_"):
        assert text in done.stdout


LONGER = ("agent=ppo_lagrangian", "evaluations=26", "finetune.epochs=8")
MOMENTS = (("search", "evaluations.jsonl", 12), ("finetune", "finetune.csv", 3))
"""Stage, a file that grows meanwhile, and how many lines it has when the process is killed."""


def killed_at(moment: str, file: str, count: int, run: Path, *line: str) -> None:
    """Start a process on a run, and kill it while it is in the middle of a stage."""

    def reached() -> bool:
        path = run / file
        return path.exists() and len(path.read_bytes().splitlines()) >= count

    command = [sys.executable, "-m", "rlprune", *line]
    with open(run.parent / "log", "w") as log:
        process = subprocess.Popen(
            command, cwd=run.parent, env=environment(), stdout=log, stderr=log
        )
        deadline = time.monotonic() + 120
        while not reached() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL, (run.parent / "log").read_text()
    assert not (run / "stages" / f"{moment}.json").exists()
    assert not (run / "report.json").exists()


def test_killed_at_any_moment_a_run_ends_as_if_it_had_not_been(
    cli: Cli, tmp_path: Path, trained: Path
) -> None:
    cut, undisturbed = tmp_path / "cut", tmp_path / "undisturbed"
    settings = (*TINY, *LONGER, f"pretrained_dir={trained}", f"hydra.run.dir={cut}")
    killed_at(*MOMENTS[0], cut, *settings)
    killed_at(*MOMENTS[1], cut, f"run={cut}")
    resumed = cli(f"run={cut}", tiny=False)
    assert resumed.returncode == 0, resumed.stderr
    whole = cli(*settings[:-1], f"hydra.run.dir={undisturbed}", tiny=False)
    assert whole.returncode == 0, whole.stderr
    for name in ("plan.json", "masks.safetensors", "compacted.safetensors", "model.safetensors"):
        assert (cut / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert without_times(cut) == without_times(undisturbed)


def without_times(run: Path) -> Any:
    report = json.loads((run / "report.json").read_text())
    rows = report["finetune"]["history"]
    trained = [{k: v for k, v in row.items() if "second" not in k} for row in rows]
    keys = ("budgets", "evaluations", "quality", "groups", "plan", "objective")
    return {key: report[key] for key in keys}, trained
