"""Plans measured by Ray actors, on this machine or on the nodes of a cluster."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from rlprune.errors import ConfigError, RlpruneError
from rlprune.problem.executors.crew import LIVES, Crew, Word, Worker, cores, pickled

if TYPE_CHECKING:
    from rlprune.problem.assessor import Answer, Assessor, Request

logger = logging.getLogger(__name__)

_OPTIONS = ("cpus", "gpus", "resources")


class RayExecutor(Crew):
    """Measures plans in Ray actors (https://ray.io); needs ``pip install "rlprune[ray]"``.

    Network and data are put into Ray's object store once; every actor takes them from there and
    receives plans. Ray is started, or the cluster joined, with the first evaluation, and left when
    this process ends. Every node needs rlprune and the modules that budgets and scores are from.

    Args:
        workers: How many actors; ``auto`` is what the cluster's processors and GPUs hold.
        threads: PyTorch threads, and processors asked for, of each; see :class:`Crew`.
        time_limit: Seconds that one plan may take; None waits for ever.
        memory: GiB that all actors together may hold.
        address: A running cluster's (``auto``, ``ray://host:10001``); None is this machine.
        gpus: GPUs of each actor; a fraction lets several share one.
        clock: What the actor needs that measures budgets with a clock, while the others are at
            work: ``cpus``, ``gpus``, ``resources`` (names of Ray's custom resources and amounts),
            as in ``{"resources": {"device": 1}}``. Give it a node to itself, of the kind that this
            process runs on: reference values, and the check of the result, are measured here.
            None measures them in this process, while no worker is at work.

    Raises:
        ConfigError: Ray is not installed, or an option is out of its range.
    """

    kind = "ray"

    def __init__(
        self,
        workers: int | Literal["auto"] = "auto",
        threads: int | None = None,
        time_limit: float | None = None,
        memory: float | None = None,
        address: str | None = None,
        gpus: float = 0,
        clock: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(workers, threads, time_limit, memory)
        if find_spec("ray") is None:
            raise ConfigError('executor=ray needs Ray: pip install "rlprune[ray]"')
        if not gpus >= 0:
            raise ConfigError(f"executor: gpus must be 0 or more, got {gpus}")
        unknown = sorted(set(clock or ()) - set(_OPTIONS))
        if unknown:
            raise ConfigError(
                f"executor: clock has no option {unknown[0]!r}; choose of {', '.join(_OPTIONS)}"
            )
        self._address, self._gpus, self._clock = address, float(gpus), clock
        self._payload: Any = None
        self._timer: Any = None
        self._started = 0

    @property
    def has_clock(self) -> bool:
        """Whether an actor of its own measures budgets with a clock."""
        return self._clock is not None

    def clocked(self, assessor: Assessor, requests: Sequence[Request]) -> Iterator[Answer]:
        """Answers of the actor that reads clocks, in order; it begins on all of them at once.

        Raises:
            RlpruneError: What measuring raised, or the actor is lost every time.
        """
        self._adopt(assessor)
        return self._collected(assessor, requests, self._ask_timer(assessor, requests))

    def _ask_timer(self, assessor: Assessor, requests: Sequence[Request]) -> list[Any]:
        if self._timer is None:
            self._timer = self._timing_actor(assessor)
        return [self._timer.answer.remote(request) for request in requests]

    def _collected(
        self, assessor: Assessor, requests: Sequence[Request], asked: list[Any]
    ) -> Iterator[Answer]:
        ray, losses = _ray(), 0
        while asked:
            try:
                found = _loaded(ray.get(asked[0], timeout=self._limit))
            except (ray.exceptions.RayError, TimeoutError) as error:
                losses += 1
                logger.warning("the worker that reads clocks was lost: %s", error)
                ray.kill(self._timer)
                self._timer = None
                if losses == LIVES:
                    raise RlpruneError(
                        f"the worker that reads clocks was lost {LIVES} times"
                    ) from error
                asked = self._ask_timer(assessor, requests[len(requests) - len(asked) :])
                continue
            losses, asked = 0, asked[1:]
            if isinstance(found, Exception):
                raise found
            yield replace(found, worker="clock")

    def close(self) -> None:
        """End the actors; the next call starts new ones, in the same Ray."""
        super().close()
        if self._timer is not None:
            _ray().kill(self._timer)
        self._payload = self._timer = None

    @property
    def _limit(self) -> float | None:
        return None if math.isinf(self._time_limit) else self._time_limit

    def _connected(self) -> Any:
        ray = _ray()
        if not ray.is_initialized():
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
            if self._address is None:
                wanted = 0 if self._asked == "auto" else int(self._asked) * self.threads
                count = max(cores(), wanted)
                options.update(address="local", num_cpus=count, include_dashboard=False)
            else:
                options.update(address=self._address)
            try:
                ray.init(**options)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"executor=ray: no cluster at {self._address}: {error}"
                ) from error
        return ray

    def _room(self) -> int:
        held = self._connected().cluster_resources()
        places = held.get("CPU", 0) // self.threads
        if self._gpus:
            places = min(places, held.get("GPU", 0) // self._gpus)
        if places < 1:
            raise ConfigError(
                f"executor=ray: the cluster has {held.get('CPU', 0):g} processors and "
                f"{held.get('GPU', 0):g} GPUs, too few for one worker with threads={self.threads}, "
                f"gpus={self._gpus:g}"
            )
        return int(places)

    def _open(self, assessor: Assessor) -> None:
        ray = self._connected()
        self._payload = ray.put(pickled(self.kind, assessor, self.threads))
        logger.info(
            "%d workers, each with %d processors and %g GPUs, in a cluster with %s",
            self.workers, self.threads, self._gpus, _told(ray.cluster_resources()),
        )  # fmt: skip

    def _hire(self) -> Worker:
        self._started += 1
        options = {"num_cpus": self.threads, "num_gpus": self._gpus}
        return _Actor(_actor(options, self._payload), str(self._started))

    def _speaking(self, workers: Sequence[Worker], timeout: float | None) -> list[Worker]:
        ray = _ray()
        by_reference = {
            worker.reference: worker for worker in workers if isinstance(worker, _Actor)
        }
        waiting = list(by_reference)
        done, rest = ray.wait(waiting, num_returns=1, timeout=timeout)
        if rest and done:
            done += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return [by_reference[reference] for reference in done]

    def _timing_actor(self, assessor: Assessor) -> Any:
        asked = dict(self._clock or {})
        options = {
            "num_cpus": asked.get("cpus", self.threads),
            "num_gpus": asked.get("gpus", 0),
            "resources": asked.get("resources"),
        }
        content = pickled(self.kind, assessor.with_clocks(), self.threads)
        return _actor(options, self._connected().put(content))


class _Actor(Worker):
    """A Ray actor, and what it was asked last."""

    def __init__(self, actor: Any, name: str) -> None:
        self.actor, self.name = actor, name
        self.reference = actor.ready.remote()

    def ask(self, request: Request) -> None:
        self.reference = self.actor.answer.remote(request)

    def receive(self) -> Answer | Exception | Word:
        ray = _ray()
        try:
            found: Answer | Exception | Word = _loaded(ray.get(self.reference))
        except ray.exceptions.RayError as error:
            logger.debug("worker %s: %s", self.name, error)
            return "dead"
        return found

    def end(self, *, now: bool = False) -> str:
        ray = _ray()
        if ray.is_initialized():
            ray.kill(self.actor)
        return f"actor {self.actor._actor_id.hex()[:8]}"


class _Assessing:
    """What an actor does: see :mod:`rlprune.problem.executors.worker`."""

    def __init__(self, payload: bytes) -> None:
        from rlprune.problem.executors.worker import opened

        self._assessor = opened(payload)

    def ready(self) -> bytes:
        from rlprune.problem.executors.worker import told

        return told("ready")

    def answer(self, request: Request) -> bytes:
        from rlprune.problem.executors.worker import answered

        return answered(self._assessor, request)


def _actor(options: Mapping[str, Any], payload: Any) -> Any:
    given = {name: value for name, value in options.items() if value is not None}
    return _ray().remote(**given)(_Assessing).remote(payload)


def _loaded(content: bytes) -> Any:
    import cloudpickle

    return cloudpickle.loads(content)


def _told(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{resources[key]:g} {key}" for key in ("CPU", "GPU") if key in resources)


def _ray() -> Any:
    import ray

    return ray
