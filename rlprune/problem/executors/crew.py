"""Several workers at one list of plans: answers in order, lost workers replaced."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from rlprune.errors import ConfigError, NotFiniteError, RlpruneError

if TYPE_CHECKING:
    from rlprune.problem.assessor import Answer, Assessor, Request

logger = logging.getLogger(__name__)

LIVES = 3
"""Workers that one plan may cost before it is given up."""
_NOT_FINITE = 2
_PATIENCE = 30.0

Word = Literal["ready", "dead"]
"""What a worker says besides answers and exceptions."""


class Worker(ABC):
    """One worker, and what it is doing.

    Attributes:
        name: Shown in statistics and messages.
        ready: Whether it holds the network, and may be asked.
        ticket: Number of the request it works on; None while it is idle.
        deadline: When it is taken for hung, by :func:`time.monotonic`.
        peak: Most memory that its process has held, MiB.
    """

    name: str
    ready: bool = False
    ticket: int | None = None
    deadline: float = math.inf
    peak: float = 0.0

    @abstractmethod
    def ask(self, request: Request) -> None:
        """Give it a request; one that is dead says so in :meth:`receive`."""

    @abstractmethod
    def receive(self) -> Answer | Exception | Word:
        """What it has to say."""

    @abstractmethod
    def end(self, *, now: bool = False) -> str:
        """End its process, without waiting for it if ``now``; how it ended, in words."""


@dataclass
class _Asked:
    """One plan of a list: its request, and what it has cost so far."""

    request: Request
    deaths: int = 0
    not_finite: int = 0


class Crew(ABC):
    """What executors with workers of their own share.

    Every worker has its own copy of network, data and workspace, sent once. Answers come in the
    order of the requests, whichever worker is first, so a search has the ledger it would have had
    in one process. A worker that dies, takes longer than ``time_limit`` for a plan, or finds a
    score that is not finite, is replaced, and its plan is asked again; a score that is not finite
    a second time is the plan's own.

    Args:
        workers: How many; ``auto`` takes as many as there is room for.
        threads: PyTorch threads of each; None takes as many as this process has, with which
            results equal those of this process to the last bit.
        time_limit: Seconds that one plan may take; None waits for ever.
        memory: GiB that all workers together may hold; where they hold more at their peak, there
            are fewer from then on, at last one.

    Raises:
        ConfigError: An option is out of its range.
    """

    kind: str

    def __init__(
        self,
        workers: int | Literal["auto"],
        threads: int | None,
        time_limit: float | None,
        memory: float | None,
    ) -> None:
        if workers != "auto" and (isinstance(workers, str) or workers < 1):
            raise ConfigError(f"executor: workers must be auto or at least 1, got {workers!r}")
        if threads is not None and threads < 1:
            raise ConfigError(f"executor: threads must be at least 1, got {threads}")
        for name, value in (("time_limit", time_limit), ("memory", memory)):
            if value is not None and not value > 0:
                raise ConfigError(f"executor: {name} must be positive or null, got {value}")
        self._asked, self._threads = workers, threads
        self._time_limit = math.inf if time_limit is None else float(time_limit)
        self._memory = None if memory is None else 1024 * float(memory)
        self._assessor: Assessor | None = None
        self._workers: list[Worker] = []
        self._count: int | None = None
        self._tickets = self._stillborn = 0

    @property
    def workers(self) -> int:
        """How many plans are measured at the same time."""
        if self._count is None:
            self._count = self._room() if self._asked == "auto" else int(self._asked)
        return self._count

    @property
    def threads(self) -> int:
        """PyTorch threads of each worker."""
        import torch

        return self._threads or torch.get_num_threads()

    def answer(self, assessor: Assessor, requests: Sequence[Request]) -> Iterator[Answer]:
        """Measure some plans; see :class:`rlprune.problem.executors.Executor`.

        Raises:
            RlpruneError: What measuring raised, or a plan whose worker is lost every time.
        """
        if not requests:
            return
        self._adopt(assessor)
        first = self._tickets
        self._tickets += len(requests)
        asked = [_Asked(request) for request in requests]
        waiting = deque(range(len(asked)))
        answers: dict[int, Answer | Exception] = {}
        for turn in range(len(asked)):
            while turn not in answers:
                wanted = len(waiting) + sum(w.ticket is not None for w in self._workers)
                self._fill(min(self.workers, wanted))
                self._hand_out(asked, waiting, first)
                for worker in self._heard():
                    number = -1 if worker.ticket is None else worker.ticket - first
                    found = self._word(worker, asked[number] if number >= 0 else None)
                    if number >= 0 and found is not None:
                        answers[number] = found
                    elif number >= 0 and worker.ticket is None:
                        waiting.appendleft(number)
            found = answers.pop(turn)
            if isinstance(found, Exception):
                raise found
            yield found

    def close(self) -> None:
        """End the workers; the next call starts new ones."""
        for worker in self._workers:
            worker.end()
        self._workers, self._assessor, self._stillborn = [], None, 0

    def __del__(self) -> None:
        if sys.is_finalizing():  # they end with this process
            return
        for worker in getattr(self, "_workers", ()):
            worker.end()

    def _adopt(self, assessor: Assessor) -> None:
        """Let go of another assessor's workers."""
        if self._assessor is not assessor:
            self.close()
            self._open(assessor)
            self._assessor = assessor

    @abstractmethod
    def _open(self, assessor: Assessor) -> None:
        """Prepare what workers are sent."""

    @abstractmethod
    def _hire(self) -> Worker:
        """Start a worker."""

    @abstractmethod
    def _speaking(self, workers: Sequence[Worker], timeout: float | None) -> list[Worker]:
        """Those that have something to say or are dead, at most ``timeout`` seconds from now."""

    @abstractmethod
    def _room(self) -> int:
        """How many workers there is room for."""

    def _fill(self, count: int) -> None:
        while len(self._workers) < count:
            self._workers.append(self._hire())

    def _hand_out(self, asked: Sequence[_Asked], waiting: deque[int], first: int) -> None:
        for worker in self._workers:
            if waiting and worker.ready and worker.ticket is None:
                number = waiting.popleft()
                worker.ticket = first + number
                worker.deadline = time.monotonic() + self._time_limit
                worker.ask(asked[number].request)

    def _heard(self) -> list[Worker]:
        """Workers with news, or past their deadline."""
        busy = [w for w in self._workers if w.ticket is not None or not w.ready]
        nearest = min((w.deadline for w in busy), default=math.inf)
        starting = not any(w.ticket is not None for w in busy)
        left = min(nearest - time.monotonic(), _PATIENCE if starting else math.inf)
        found = self._speaking(busy, None if math.isinf(left) else max(left, 0.0))
        if not found and starting:
            logger.info("waiting for %d workers to start", len(busy))
        now = time.monotonic()
        return found + [w for w in busy if w.deadline <= now and w not in found]

    def _word(self, worker: Worker, asked: _Asked | None) -> Answer | Exception | None:
        """Take what a worker says: an answer or exception of its plan, or None."""
        hung = worker.deadline <= time.monotonic()
        found = worker.receive() if worker in self._speaking([worker], 0.0) else None
        if found == "ready":
            worker.ready, self._stillborn = True, 0
            return None
        if found is None and not hung:
            return None
        worker.ticket, worker.deadline = None, math.inf
        if isinstance(found, NotFiniteError) and asked is not None:
            asked.not_finite += 1
            if asked.not_finite == _NOT_FINITE:
                return found
            self._lose(worker, "found a score that is not finite")
            return None
        if found is None or found == "dead":
            self._lose(worker, f"took longer than {self._time_limit:g} s" if hung else "died")
            if asked is not None:
                asked.deaths += 1
                _give_up(asked)
            return None
        if isinstance(found, Exception):
            return found
        worker.peak = found.peak
        self._hold_memory()
        return replace(found, worker=worker.name)

    def _lose(self, worker: Worker, why: str) -> None:
        self._workers.remove(worker)
        how = worker.end(now=True)
        if not worker.ready:
            self._stillborn += 1
            if self._stillborn == LIVES:
                raise RlpruneError(
                    f"executor={self.kind}: {LIVES} workers died one after the other while they "
                    f"started ({how}); executor=serial does without"
                )
        logger.warning("worker %s %s (%s); another one takes its place", worker.name, why, how)

    def _hold_memory(self) -> None:
        """Let one worker go where all together hold too much."""
        if self._memory is None or self._count is None or self._count == 1:
            return
        held = sum(worker.peak for worker in self._workers)
        idle = next((w for w in self._workers if w.ticket is None), None)
        if held <= self._memory or idle is None:
            return
        self._count -= 1
        self._workers.remove(idle)
        idle.end()
        logger.warning(
            "workers held %.0f MiB, executor.memory allows %.0f: %d are left",
            held, self._memory, self._count,
        )  # fmt: skip


def cores() -> int:
    """Processor cores that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable is not None else os.cpu_count() or 1


def pickled(kind: str, *content: Any) -> bytes:
    """What is sent to a worker.

    Raises:
        ConfigError: It cannot be sent.
    """
    import cloudpickle

    try:
        found: bytes = cloudpickle.dumps(content)
    except Exception as error:
        raise ConfigError(
            f"executor={kind}: network, data, budgets or score cannot be sent to another process "
            f"({type(error).__name__}: {error}); use executor=serial"
        ) from error
    return found


def _give_up(asked: _Asked) -> None:
    if asked.deaths >= LIVES:
        raise RlpruneError(
            f"{asked.deaths} workers were lost one after the other while they measured "
            f"{asked.request.plan!r}; is there memory for so many, and is executor.time_limit long "
            "enough? Set executor.workers lower, or executor=serial to see why"
        )
