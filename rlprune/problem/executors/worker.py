"""What a worker process does."""

from __future__ import annotations

import signal
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from rlprune.errors import ConfigError, RlpruneError

if TYPE_CHECKING:
    from rlprune.problem.assessor import Assessor, Request


def serve(connection: Connection) -> None:
    """Receives an assessor, says that it is ready, then answers requests until the pipe is closed.

    Args:
        connection: this end of the pipe.
    """
    # Ctrl-C reaches every process of a terminal; the one that asks decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assessor = opened(connection.recv_bytes())
        connection.send_bytes(told("ready"))
        while True:
            request: Request = connection.recv()
            connection.send_bytes(answered(assessor, request))
    except (EOFError, OSError):
        return


def opened(payload: bytes) -> Assessor | Exception:
    """The assessor, with this process set up for it; or why there is none."""
    import pickle

    import torch

    try:
        assessor, threads = pickle.loads(payload)
    except Exception as error:
        return ConfigError(
            f"a worker cannot rebuild the problem: {type(error).__name__}: {error}; "
            "executor=serial does without"
        )
    torch.set_num_threads(threads)
    found: Assessor = assessor
    return found


def answered(assessor: Assessor | Exception, request: Request) -> bytes:
    """What the one that asks gets: an answer, or the exception that it shall raise."""
    found: Any = assessor
    if not isinstance(assessor, Exception):
        try:
            found = assessor.answer(request)
        except Exception as error:
            found = error
    return told(found)


def told(found: Any) -> bytes:
    """Anything as bytes; an exception that cannot be sent as its words."""
    import cloudpickle

    try:
        content: bytes = cloudpickle.dumps(found)
    except Exception:
        content = cloudpickle.dumps(RlpruneError(f"{type(found).__name__} in a worker: {found}"))
    return content
