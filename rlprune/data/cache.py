"""Where decoded images and downloaded data sets are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir(path: str | os.PathLike[str] | None = None) -> Path:
    """The folder for decoded images and downloads.

    Args:
        path: A folder of the user's choice; None takes ``$RLPRUNE_CACHE``, else
            ``$XDG_CACHE_HOME/rlprune``, else ``~/.cache/rlprune``.

    Returns:
        The folder, which may not exist yet.
    """
    if path is not None:
        return Path(path).expanduser()
    if os.environ.get("RLPRUNE_CACHE"):
        return Path(os.environ["RLPRUNE_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rlprune"
