"""One plan after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlprune.problem.workbench import Answer, Request, Workbench


class SerialExecutor:
    """Measures plans in this process, one at a time."""

    workers = 1

    def answer(self, bench: Workbench, requests: Sequence[Request]) -> Iterator[Answer]:
        """Measure some plans; see :class:`rlprune.problem.executors.Executor`."""
        for request in requests:
            yield bench.answer(request)

    def close(self) -> None:
        """Nothing is held."""
