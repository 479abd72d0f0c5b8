"""Locks between processes, which fall when a process ends, however that happens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlprune.errors import ConfigError


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock.

    Args:
        path: The lock's file; made, and left behind.
        wait: Whether to wait while another process holds it.

    Raises:
        ConfigError: Another process holds it, and ``wait`` is false; names that process.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such locks: two processes may do the same work twice
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            handle.seek(0)
            owner = handle.read().strip() or "unknown"
            raise ConfigError(
                f"process {owner} works in {path.parent}; wait for it, or choose another folder"
            ) from error
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield
