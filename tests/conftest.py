from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing outside the tests' own folders is read or written."""
    torch.set_num_threads(1)
    os.environ["RLPRUNE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ.setdefault("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
