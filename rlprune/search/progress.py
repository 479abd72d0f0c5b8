"""The progress bar of a search."""

from __future__ import annotations

import sys


class ProgressBar:
    """Unique evaluations, best feasible quality and time left, on standard error.

    Args:
        total: unique evaluations to expect.
        show: draw it; None draws it only when standard error is a terminal.
    """

    def __init__(self, total: int, *, show: bool | None = None) -> None:
        from tqdm import tqdm

        hidden = not (sys.stderr.isatty() if show is None else show)
        self._bar = tqdm(total=total, desc="search", unit="eval", disable=hidden, leave=True)

    def update(self, count: int, best: float | None) -> None:
        """Shows ``count`` evaluations and the best feasible quality so far."""
        shown = "none feasible" if best is None else f"{best:.5g}"
        self._bar.set_postfix_str(f"best={shown}", refresh=False)
        self._bar.update(count - self._bar.n)

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()
