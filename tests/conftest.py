from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rlprune.locks import locked

REPOSITORY = Path(__file__).resolve().parent.parent
Shared = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing outside the tests' own folders is read or written, and every worker has a thread."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
    os.environ["RLPRUNE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ.setdefault("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """``shared(name, fill)``: a folder that one worker fills, for the tests of all of them."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def folder(name: str, fill: Callable[[Path], object] = lambda _: None) -> Path:
        path, filled = root / "shared" / name, root / "shared" / f"{name}.filled"
        with locked(root / "shared" / f"{name}.lock"):
            if not filled.exists():
                path.mkdir(exist_ok=True)
                fill(path)
                filled.touch()
        return path

    return folder
