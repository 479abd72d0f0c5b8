"""A preempted job goes on where it was; submitit's local executor stands for SLURM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from .conftest import TINY, environment

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        find_spec("submitit") is None or not Path("/proc").is_dir(),
        reason="needs submitit, and /proc to find its job",
    ),
]

COMMAND = (
    "-m", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5", "evaluations=150",
    "hydra.sweep.dir=sweep", "seed=0,1",
)  # fmt: skip


def jobs(folder: Path) -> list[int]:
    """Process numbers of the tasks that submitit runs below a folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"submitit.core._submit" in words and str(folder).encode() in b" ".join(words):
                found.append(int(process.name))
    return found


def stored(run: Path) -> int:
    file = run / "evaluations.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def ledger(run: Path) -> tuple[str, list[str]]:
    plan = json.loads((run / "stages" / "search.json").read_text())["result"]["plan"]
    return plan, [row.split(",")[1] for row in (run / "history.csv").read_text().splitlines()]


def test_a_sweep_whose_jobs_are_preempted_ends_as_if_they_had_not_been(
    tmp_path: Path, trained: Path
) -> None:
    options = [*(item for item in TINY if "evaluations" not in item), f"pretrained_dir={trained}"]
    arguments = [sys.executable, "-m", "rlprune", *COMMAND, *options]
    told = subprocess.Popen(arguments, cwd=tmp_path, env=environment())
    preempted = set()
    deadline = time.monotonic() + 240
    while told.poll() is None and time.monotonic() < deadline:
        for run in (tmp_path / "sweep" / "0", tmp_path / "sweep" / "1"):
            if run not in preempted and 5 < stored(run) < 130:
                for job in jobs(tmp_path):
                    os.kill(job, signal.SIGUSR2)
                preempted.add(run)
        time.sleep(0.05)
    assert told.wait(60) == 0
    assert preempted
    logs = "".join(p.read_text() for p in (tmp_path / "sweep").rglob("*_log.err"))
    assert "this job is preempted" in logs + "".join(
        p.read_text() for p in (tmp_path / "sweep").rglob("*_log.out")
    )
    whole = subprocess.run(
        [sys.executable, "-m", "rlprune", *options, "evaluations=150", "seed=0",
         "hydra.run.dir=alone"], cwd=tmp_path, env=environment(), check=False,
    )  # fmt: skip
    assert whole.returncode == 0
    assert ledger(tmp_path / "sweep" / "0") == ledger(tmp_path / "alone")
