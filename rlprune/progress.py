"""A progress bar for anything that takes longer than a few seconds."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable
from typing import TypeVar

_T = TypeVar("_T")


def track(
    items: Iterable[_T], description: str, *, total: int | None = None, show: bool | None = None
) -> Generator[_T, None, None]:
    """Yield ``items`` behind a bar that vanishes when done.

    Args:
        items: What to go through.
        description: Shown before the bar.
        total: Number of items; None takes ``len(items)`` where there is one.
        show: Whether to draw the bar; None draws it when standard error is a terminal.

    Yields:
        The items.
    """
    if not (sys.stderr.isatty() if show is None else show):
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    yield from rich_track(
        items, description=description, total=total, console=console, transient=True
    )
