"""What a worker process does."""

from __future__ import annotations

import signal
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from rlprune.errors import ConfigError, RlpruneError

if TYPE_CHECKING:
    from rlprune.problem.assessor import Assessor, Request


def serve(connection: Connection) -> None:
    """Receives an assessor, then answers requests until the other end is closed.

    Args:
        connection: this end of the pipe.
    """
    # Ctrl-C reaches every process of a terminal; the one that asks decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assessor = _opened(connection.recv_bytes())
        while True:
            request: Request = connection.recv()
            connection.send_bytes(_answer(assessor, request))
    except (EOFError, OSError):
        return


def _opened(payload: bytes) -> Assessor | Exception:
    """The assessor, with this process set up for it; or why there is none."""
    import pickle

    import torch

    try:
        assessor, threads = pickle.loads(payload)
    except Exception as error:
        return ConfigError(
            "executor=processes: a worker cannot rebuild the problem: "
            f"{type(error).__name__}: {error}"
        )
    torch.set_num_threads(threads)
    found: Assessor = assessor
    return found


def _answer(assessor: Assessor | Exception, request: Request) -> bytes:
    """What the parent gets: an answer, or the exception that it shall raise."""
    import cloudpickle

    found: Any = assessor
    if not isinstance(assessor, Exception):
        try:
            found = assessor.answer(request)
        except Exception as error:
            found = error
    try:
        content: bytes = cloudpickle.dumps(found)
    except Exception:
        told = RlpruneError(f"{type(found).__name__} in a worker: {found}")
        content = cloudpickle.dumps(told)
    return content
