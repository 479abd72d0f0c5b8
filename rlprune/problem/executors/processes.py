"""Several plans at a time, each in a process of its own."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from rlprune.errors import ConfigError, RlpruneError
from rlprune.problem.executors.worker import serve

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from rlprune.problem.assessor import Answer, Assessor, Request

logger = logging.getLogger(__name__)

_LIVES = 3
_LAST_WORDS = 0.2


class ProcessExecutor:
    """Measures plans in worker processes.

    Every worker has its own copy of network, data and workspace, sent once. Answers come in the
    order of the requests, whichever worker is first, so a search has the ledger it would have had
    in one process. A worker that dies is replaced, and its plan is asked again.

    Workers are spawned and import what they need: a budget or score of the user's own is sent by
    value where it is defined in the running script, by name where it lives in a module. What it
    changes (counters, lists) stays in the worker.

    Args:
        workers: how many processes.
        threads: PyTorch threads of each; None takes as many as this process has, with which
            results equal those of this process to the last bit. To use a machine well, let
            workers times threads be its number of cores, and set this process's threads alike.

    Raises:
        ConfigError: a number is below 1.
    """

    def __init__(self, workers: int = 2, threads: int | None = None) -> None:
        for name, value in (("workers", workers), ("threads", 1 if threads is None else threads)):
            if value < 1:
                raise ConfigError(f"executor: {name} must be at least 1, got {value}")
        self._count, self._threads = int(workers), threads
        self._assessor: Assessor | None = None
        self._workers: list[_Worker] = []
        self._payload = b""
        self._tickets = 0

    @property
    def workers(self) -> int:
        """How many plans are measured at the same time."""
        return self._count

    def answer(self, assessor: Assessor, requests: Sequence[Request]) -> Iterator[Answer]:
        """Measure some plans; see :class:`rlprune.problem.executors.Executor`.

        Raises:
            RlpruneError: what measuring raised, or a plan whose worker dies every time.
        """
        if not requests:
            return
        self._open(assessor, len(requests))
        first = self._tickets
        self._tickets += len(requests)
        waiting = list(range(len(requests)))
        deaths = [0] * len(requests)
        answers: dict[int, Any] = {}
        for turn in range(len(requests)):
            while turn not in answers:
                idle = (worker for worker in self._workers if worker.ticket is None)
                for worker, number in zip(idle, list(waiting), strict=False):
                    waiting.remove(number)
                    worker.ask(first + number, requests[number])
                for worker in self._ready():
                    number = -1 if worker.ticket is None else worker.ticket - first
                    found = worker.receive()
                    if found is None:
                        self._workers.remove(worker)
                        worker.end()
                        if number >= 0:
                            deaths[number] += 1
                            waiting.insert(0, number)
                            _give_up(requests[number], deaths[number])
                        logger.warning(
                            "a worker died (exit code %s); its plan is asked again",
                            worker.process.exitcode,
                        )
                        self._workers.append(_Worker.start(self._payload))
                    elif number >= 0:
                        answers[number] = found
            found = answers.pop(turn)
            if isinstance(found, Exception):
                raise found
            yield found

    def close(self) -> None:
        """End the workers; the next call starts new ones."""
        for worker in self._workers:
            worker.end()
        self._workers, self._assessor, self._payload = [], None, b""

    def _open(self, assessor: Assessor, wanted: int) -> None:
        """Start workers for an assessor, no more than there is work for."""
        import torch

        if self._assessor is not assessor:
            self.close()
            threads = self._threads or torch.get_num_threads()
            self._payload = _pickled(assessor, threads)
            self._assessor = assessor
            cores = os.cpu_count() or 1
            if self._count * threads > cores:
                logger.info(
                    "%d workers with %d threads each share %d cores; set threads of this process "
                    "and of the executor lower", self._count, threads, cores,
                )  # fmt: skip
        while len(self._workers) < min(self._count, wanted):
            self._workers.append(_Worker.start(self._payload))

    def _ready(self) -> list[_Worker]:
        """Workers that have something to say, or are dead."""
        by_handle: dict[Any, _Worker] = {}
        for worker in self._workers:
            if worker.ticket is not None:
                by_handle[worker.connection] = worker
                by_handle[worker.process.sentinel] = worker
        return list({id(by_handle[h]): by_handle[h] for h in wait(list(by_handle))}.values())

    def __del__(self) -> None:
        for worker in getattr(self, "_workers", ()):
            worker.end()


@dataclass(eq=False)
class _Worker:
    """One process, and what it is doing.

    Attributes:
        process: the process.
        connection: this end of its pipe.
        ticket: number of the request that it works on; None while it is idle.
    """

    process: BaseProcess
    connection: Connection
    ticket: int | None = None

    @classmethod
    def start(cls, payload: bytes) -> _Worker:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs,), daemon=True, name="rlprune-worker")
        with _main_not_imported():
            process.start()
        theirs.close()
        worker = cls(process, ours)
        try:
            ours.send_bytes(payload)
        except OSError:
            logger.debug("a worker died while it started")
        return worker

    def ask(self, ticket: int, request: Request) -> None:
        self.ticket = ticket
        try:
            self.connection.send(request)
        except OSError:
            logger.debug("a worker died before it was asked")

    def receive(self) -> Answer | Exception | None:
        """What it answers; None where it is dead."""
        import cloudpickle

        self.ticket = None
        try:
            if not self.connection.poll():
                return None
            found: Answer | Exception = cloudpickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            return None
        return found

    def end(self) -> None:
        self.connection.close()
        self.process.join(_LAST_WORDS)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()


def _pickled(assessor: Assessor, threads: int) -> bytes:
    import cloudpickle

    try:
        content: bytes = cloudpickle.dumps((assessor, threads))
    except Exception as error:
        raise ConfigError(
            "executor=processes: network, data, budgets or score cannot be sent to another process "
            f"({type(error).__name__}: {error}); use executor=serial"
        ) from error
    return content


@contextmanager
def _main_not_imported() -> Iterator[None]:
    """Spawned processes leave the running script alone.

    They would import it to find functions by name there; here functions travel by value, so a
    script needs no ``if __name__ == "__main__"``.
    """
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {
        k: main.__dict__.pop(k) for k in ("__file__", "__spec__") if k in main.__dict__
    }
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.pop("__spec__")
        main.__dict__.update(hidden)


def _give_up(request: Request, deaths: int) -> None:
    if deaths >= _LIVES:
        raise RlpruneError(
            f"{deaths} workers died one after the other while they measured {request.plan!r}; is "
            "there memory for so many? Set executor.workers lower, or executor=serial to see why"
        )
