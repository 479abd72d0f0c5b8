"""The progress bar of a search."""

from __future__ import annotations

import sys
from typing import Any


class ProgressBar:
    """Unique evaluations, best feasible quality and time left, on standard error.

    Args:
        total: unique evaluations to expect.
        show: draw it; None draws it only when standard error is a terminal.
    """

    def __init__(self, total: int, *, show: bool | None = None) -> None:
        self._progress: Any = None
        if not (sys.stderr.isatty() if show is None else show):
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("searching"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("evaluations, best feasible quality {task.fields[best]},"),
            TimeElapsedColumn(),
            TextColumn("gone,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("search", total=total, best="-")
        self._progress.start()

    def update(self, count: int, best: float | None) -> None:
        """Shows ``count`` evaluations and the best feasible quality so far."""
        if self._progress is not None:
            shown = "none yet" if best is None else f"{best:.5g}"
            self._progress.update(self._task, completed=count, best=shown)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._progress is not None:
            self._progress.stop()
