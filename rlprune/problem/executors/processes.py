"""Several plans at a time, each in a process of its own."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, Literal

from rlprune.problem.executors.crew import Crew, Word, Worker, cores, pickled
from rlprune.problem.executors.worker import serve

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from rlprune.problem.assessor import Answer, Assessor, Request

logger = logging.getLogger(__name__)

_LAST_WORDS = 0.2


class ProcessExecutor(Crew):
    """Measures plans in worker processes of this machine.

    Workers are spawned and import what they need: a budget or score of the user's own is sent by
    value where it is defined in the running script, by name where it lives in a module. What it
    changes (counters, lists) stays in the worker.

    Args:
        workers: How many processes; ``auto`` is one for every ``threads`` cores.
        threads: PyTorch threads of each, see :class:`Crew`. To use a machine well, let workers
            times threads be its number of cores, and set this process's threads alike.
        time_limit: Seconds that one plan may take; None waits for ever.
        memory: GiB that all workers together may hold.

    Raises:
        ConfigError: An option is out of its range.
    """

    kind = "processes"

    def __init__(
        self,
        workers: int | Literal["auto"] = 2,
        threads: int | None = None,
        time_limit: float | None = None,
        memory: float | None = None,
    ) -> None:
        super().__init__(workers, threads, time_limit, memory)
        self._payload, self._started = b"", 0

    def close(self) -> None:
        """End the workers; the next call starts new ones."""
        super().close()
        self._payload = b""

    def _open(self, assessor: Assessor) -> None:
        self._payload = pickled(self.kind, assessor, self.threads)
        if self.workers * self.threads > cores():
            logger.info(
                "%d workers with %d threads each share %d cores; set threads of this process and "
                "of the executor lower", self.workers, self.threads, cores(),
            )  # fmt: skip

    def _hire(self) -> Worker:
        self._started += 1
        return _Process(self._payload, str(self._started))

    def _room(self) -> int:
        return max(1, cores() // self.threads)

    def _speaking(self, workers: Sequence[Worker], timeout: float | None) -> list[Worker]:
        by_handle: dict[Any, Worker] = {}
        for worker in workers:
            assert isinstance(worker, _Process)
            by_handle[worker.connection] = by_handle[worker.process.sentinel] = worker
        heard = {id(by_handle[h]): by_handle[h] for h in wait(list(by_handle), timeout)}
        return list(heard.values())


class _Process(Worker):
    """A worker process at the other end of a pipe."""

    process: BaseProcess
    connection: Connection

    def __init__(self, payload: bytes, name: str) -> None:
        context = get_context("spawn")
        self.name = name
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=serve, args=(theirs,), daemon=True, name="rlprune-worker"
        )
        with _main_not_imported():
            self.process.start()
        theirs.close()
        try:
            self.connection.send_bytes(payload)
        except OSError:
            logger.debug("a worker died while it started")

    def ask(self, request: Request) -> None:
        try:
            self.connection.send(request)
        except OSError:
            logger.debug("a worker died before it was asked")

    def receive(self) -> Answer | Exception | Word:
        import cloudpickle

        try:
            if not self.connection.poll():
                return "dead"
            found: Answer | Exception | Word = cloudpickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            return "dead"
        return found

    def end(self, *, now: bool = False) -> str:
        self.connection.close()
        if not now:
            self.process.join(_LAST_WORDS)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        return f"process {self.process.pid}, exit code {self.process.exitcode}"


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
