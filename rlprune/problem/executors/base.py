"""What an executor is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from rlprune.problem.assessor import Answer, Assessor, Request


@runtime_checkable
class Executor(Protocol):
    """Measures plans, in this process or elsewhere."""

    @property
    def workers(self) -> int:
        """How many plans are measured at the same time."""

    def answer(self, assessor: Assessor, requests: Sequence[Request]) -> Iterator[Answer]:
        """Measure some plans.

        Args:
            assessor: measures one plan in this process; the same object in every call of a problem.
            requests: what is asked.

        Yields:
            The answers in the order of the requests, as they come.

        Raises:
            RlpruneError: what measuring a plan raised, at the place of its answer.
        """

    def close(self) -> None:
        """Let go of everything held for the assessors; the next call starts anew."""


@runtime_checkable
class HasClock(Protocol):
    """An executor that may have a worker for budgets that read a clock, and for nothing else."""

    @property
    def has_clock(self) -> bool:
        """Whether it has one."""

    def clocked(self, assessor: Assessor, requests: Sequence[Request]) -> Iterator[Answer]:
        """As :meth:`Executor.answer`, measured by that worker; begun on all of them at once."""
