"""Several processes that train one network together, as ``torchrun`` starts them.

The first process, the leader, runs the program: it searches, writes files and shows progress. The
others, its helpers, wait until it trains, receive network, data and recipe, and take their part of
every batch; :class:`torch.nn.parallel.DistributedDataParallel` averages the gradients.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from rlprune.errors import RlpruneError, TrainingError

log = logging.getLogger(__name__)

_PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class Team:
    """The processes that train together.

    Attributes:
        rank: Number of this process; 0 leads.
        size: How many there are.
        control: Process group on which helpers wait for the leader; None for a process alone.
    """

    rank: int = 0
    size: int = 1
    control: Any = None

    @property
    def leads(self) -> bool:
        """Whether this process is the leader."""
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        """Its part of every batch: number and count."""
        return self.rank, self.size

    def begin(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have every helper call a function; the leader goes on, and is expected to do the same."""
        if self.size == 1:
            return
        import cloudpickle

        self._tell((cloudpickle.dumps((function, arguments)), torch.get_num_threads()))

    def gathered(self, value: Any) -> list[Any]:
        """A value of every process, in their order, in every process."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, value, group=self.control)
        return found

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            torch.distributed.all_reduce(values)
        return values

    def device(self, chosen: torch.device) -> torch.device:
        """Where this process trains: on GPUs, each on its own."""
        if self.size == 1 or chosen.type != "cuda":
            return chosen
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))

    def _tell(self, order: Any) -> None:
        torch.distributed.broadcast_object_list([order], src=0, group=self.control)

    def _follow(self) -> None:
        """Do what the leader tells, until it has nothing more to tell."""
        import pickle

        while True:
            told: list[Any] = [None]
            torch.distributed.broadcast_object_list(told, src=0, group=self.control)
            if told[0] is None:
                return
            content, threads = told[0]
            torch.set_num_threads(threads)
            function, arguments = pickle.loads(content)
            try:
                function(*arguments)
            except RlpruneError as error:
                # The leader meets the same and says so; it ends, or goes on with something else.
                log.info("process %d: %s", self.rank, error)


def _meeting_place() -> dict[str, Any]:
    """Where processes find one another, if not as the environment says.

    On one machine ``torchrun`` gives the same store to every attempt; processes that are started
    again would find the addresses of those that died.
    """
    told = os.environ
    if (told.get("TORCHELASTIC_USE_AGENT_STORE"), told.get("GROUP_WORLD_SIZE")) != ("True", "1"):
        return {}
    from torch._C._distributed_c10d import PrefixStore, TCPStore

    rank, size = int(told["RANK"]), int(told["WORLD_SIZE"])
    store = TCPStore(told["MASTER_ADDR"], int(told["MASTER_PORT"]), size, is_master=False)
    attempt = told.get("TORCHELASTIC_RESTART_COUNT", "0")
    own = PrefixStore(f"rlprune/attempt_{attempt}", store)
    return {"store": own, "rank": rank, "world_size": size}


_ALONE = Team()
_current = _ALONE


def current() -> Team:
    """The team that this process belongs to; one of itself alone outside of :func:`team`."""
    return _current


def asked_for() -> bool:
    """Whether this process was started together with others, by ``torchrun`` or the like."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@contextmanager
def team(environment: Mapping[str, str] | None = None) -> Iterator[bool]:
    """Work with the processes that ``torchrun`` started beside this one, if any.

    Args:
        environment: ``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT``, ``LOCAL_RANK``,
            where they are not in the environment yet.

    Yields:
        True in the leader and in a process alone. In helpers False, once the leader has left the
        block: they do in between what it asks of them.

    Raises:
        TrainingError: The processes do not find one another.

    Example:
        In a script that is run with ``torchrun --nproc-per-node=2 script.py``::

            with rlprune.training.team() as leader:
                if leader:
                    rlprune.prune(model, example_inputs, budgets={"macs": 0.5}, data=data)
    """
    global _current
    os.environ.update(environment or {})
    if not asked_for() or _current.size > 1:
        yield True
        return
    distributed = torch.distributed
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        distributed.init_process_group(backend, **_meeting_place())
        control = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} does not find the others: "
            f"{error}"
        ) from error
    _current = Team(distributed.get_rank(), distributed.get_world_size(), control)
    log.info("process %d of %d", _current.rank + 1, _current.size)
    try:
        if _current.leads:
            yield True
            _current._tell(None)
        else:
            logging.getLogger("rlprune").setLevel(logging.ERROR)
            _current._follow()
            yield False
        # Not where the leader failed: helpers may be amid a step, and end with their launcher.
        distributed.destroy_process_group()
    finally:
        _current = _ALONE
