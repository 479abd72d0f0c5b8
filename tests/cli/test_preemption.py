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
    "-m", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5", "hydra.sweep.dir=sweep",
)  # fmt: skip


def jobs(folder: Path) -> list[int]:
    """Process numbers of the tasks that submitit runs in a folder."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"submitit.core._submit" in words and (process / "cwd").readlink() == folder:
                found.append(int(process.name))
        except (OSError, ValueError):
            continue
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
    options = [
        *(item for item in TINY if "evaluations" not in item), "evaluations=60", "seed=3",
        f"pretrained_dir={trained}",
    ]  # fmt: skip
    started = subprocess.Popen(
        [sys.executable, "-m", "rlprune", *COMMAND, *options], cwd=tmp_path, env=environment()
    )
    run, at = tmp_path / "sweep" / "0", []
    while started.poll() is None:
        if len(at) < 2 and stored(run) > 10 + 20 * len(at) and (found := jobs(tmp_path)):
            at.append(stored(run))
            os.kill(found[0], signal.SIGUSR2)
            while found[0] in jobs(tmp_path):
                time.sleep(0.05)
        time.sleep(0.02)
    assert started.returncode == 0
    told = "".join(path.read_text() for path in (tmp_path / "sweep").rglob("*_log.*"))
    assert told.count("Starting with JobEnvironment") == 1 + len(at) == 3
    alone = subprocess.run(
        [sys.executable, "-m", "rlprune", *options, "hydra.run.dir=alone"],
        cwd=tmp_path, env=environment(), check=False,
    )  # fmt: skip
    assert alone.returncode == 0
    assert ledger(run) == ledger(tmp_path / "alone")
