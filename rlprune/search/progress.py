"""The progress bar of a search."""

from __future__ import annotations

import sys
import time
from typing import Any


class ProgressBar:
    """Unique evaluations, their rate, best feasible quality and time left, on standard error.

    Args:
        total: unique evaluations to expect.
        workers: how many plans are measured at the same time.
        show: draw it; None draws it only when standard error is a terminal.
    """

    def __init__(self, total: int, *, workers: int = 1, show: bool | None = None) -> None:
        self._progress: Any = None
        self._workers, self._started = workers, time.monotonic()
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
            TextColumn(
                "evaluations{task.fields[rate]}, best feasible quality {task.fields[best]},"
            ),
            TimeElapsedColumn(),
            TextColumn("gone,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("search", total=total, best="-", rate="")
        self._progress.start()

    def update(self, count: int, best: float | None) -> None:
        """Shows ``count`` evaluations and the best feasible quality so far."""
        if self._progress is not None:
            shown = "none yet" if best is None else f"{best:.5g}"
            rate = count / max(time.monotonic() - self._started, 1e-9)
            each = f", {rate / self._workers:.2g} by each worker" if self._workers > 1 else ""
            told = f" ({rate:.2g}/s{each})"
            self._progress.update(self._task, completed=count, best=shown, rate=told)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._progress is not None:
            self._progress.stop()
