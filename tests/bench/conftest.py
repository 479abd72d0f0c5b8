from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlprune.run.config import compose
from tests.conftest import Shared

Composed = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def pretrained(shared: Shared) -> Path:
    return shared("bench")


@pytest.fixture
def composed(tmp_path: Path, pretrained: Path) -> Composed:
    """A benchmark's configuration on a small network that knows its digits."""

    def make(name: str, *overrides: str) -> dict[str, Any]:
        return compose(
            [
                f"+bench={name}",
                "model.width=8",
                "pretrain.epochs=8",
                f"pretrained_dir={pretrained}",
                "evaluator=quick",
                "threads=1",
                f"bench.out={tmp_path / 'out'}",
                *overrides,
            ]
        )

    return make
