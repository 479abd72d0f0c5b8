"""A log that any program can follow."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlprune.callbacks.base import CALLBACKS, Callback
from rlprune.files import plain


@CALLBACKS.register("json")
class JsonLogger(Callback):
    """Appends a line of JSON for whatever happens: ``{"event": "evaluation", "quality": ...}``.

    Args:
        path: The file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()

    def on_start(self, told: Mapping[str, Any]) -> None:
        """Write the run's name."""
        self._write("start", {"run": told.get("run")})

    def on_evaluation(self, row: Mapping[str, float]) -> None:
        """Write the row."""
        self._write("evaluation", row)

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Write the row."""
        self._write("epoch", row)

    def on_stage(self, stage: str, result: Mapping[str, Any]) -> None:
        """Write the stage's name."""
        self._write("stage", {"stage": stage})

    def _write(self, event: str, content: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain({"event": event, **content})) + "\n")
