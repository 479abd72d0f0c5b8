"""One plan after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlprune.problem.assessor import Answer, Assessor, Request


class SerialExecutor:
    """Measures plans in this process, one at a time."""

    workers = 1

    def answer(self, assessor: Assessor, requests: Sequence[Request]) -> Iterator[Answer]:
        """Measure some plans; see :class:`rlprune.problem.executors.Executor`."""
        for request in requests:
            yield assessor.answer(request)

    def close(self) -> None:
        """Nothing is held."""
