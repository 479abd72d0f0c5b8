from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import rlprune

SOURCE = Path(rlprune.__file__).resolve().parent.parent

TINY = (
    "model.width=8", "pretrain.epochs=4", "pretrain.batch_size=64", "agent=random",
    "evaluations=5", "finetune.epochs=1", "export=[]", "latency.repeats=2", "threads=1",
)  # fmt: skip

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def environment() -> dict[str, str]:
    found = dict(os.environ)
    paths = [str(SOURCE), str(SOURCE / "envs"), found.get("PYTHONPATH", "")]
    found["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    found.pop("HYDRA_FULL_ERROR", None)
    return found


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests keep the dense network that the first of them trains."""
    return tmp_path_factory.mktemp("pretrained")


@pytest.fixture
def cli(tmp_path: Path, trained: Path) -> Cli:
    """Run the command line in an empty folder, with a tiny job unless told otherwise."""

    def call(*arguments: str, tiny: bool = True) -> subprocess.CompletedProcess[str]:
        extra = (*TINY, f"pretrained_dir={trained}") if tiny else ()
        return subprocess.run(
            [sys.executable, "-m", "rlprune", *arguments, *extra],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )

    return call
