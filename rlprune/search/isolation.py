"""Process-wide settings that an agent needs for itself: random generators and threads."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class OwnRandomness:
    """The global generators as one user sees them, over several turns.

    Inside the context they are where its last turn left them; outside nothing is noticed. For
    libraries that seed and draw from global generators, as stable-baselines3 does.
    """

    def __init__(self) -> None:
        self._own: tuple[Any, ...] | None = None
        self._outside: tuple[Any, ...] | None = None

    def __enter__(self) -> None:
        self._outside = _states()
        if self._own is not None:
            _restore(self._own)

    def __exit__(self, *error: object) -> None:
        assert self._outside is not None
        self._own = _states()
        _restore(self._outside)


def _states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _restore(states: tuple[Any, ...]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs PyTorch's CPU operators on one thread: an agent's matrices are too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
