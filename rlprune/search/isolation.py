"""Process-wide settings that an agent needs for itself: random generators and threads."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def isolated_randomness() -> Iterator[None]:
    """Restores the global generators of random, NumPy and PyTorch (CPU) on exit.

    stable-baselines3 seeds and draws from them; code outside must not notice.
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs PyTorch's CPU operators on one thread: an agent's matrices are too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
