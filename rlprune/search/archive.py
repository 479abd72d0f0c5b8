"""The best feasible plans seen so far."""

from __future__ import annotations

import bisect
from collections.abc import Iterator

from rlprune.plan import Plan
from rlprune.problem import Evaluation


class Archive:
    """Keeps the ``capacity`` best feasible evaluations of distinct plans, best first."""

    def __init__(self, capacity: int = 64) -> None:
        self.capacity = capacity
        self._entries: list[Evaluation] = []
        self._seen: set[Plan] = set()

    def add(self, evaluation: Evaluation) -> bool:
        """Offers an evaluation; returns whether it is the new best feasible one."""
        if not evaluation.feasible or evaluation.plan in self._seen:
            return False
        self._seen.add(evaluation.plan)
        place = bisect.bisect_right(
            [-entry.quality for entry in self._entries], -evaluation.quality
        )
        self._entries.insert(place, evaluation)
        del self._entries[self.capacity :]
        return place == 0

    @property
    def best(self) -> Evaluation | None:
        """The best feasible evaluation, or None when none was feasible."""
        return self._entries[0] if self._entries else None

    def __iter__(self) -> Iterator[Evaluation]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
