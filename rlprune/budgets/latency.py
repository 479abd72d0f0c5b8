"""Measured latency, stated through its ratio to the dense network's."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from rlprune.budgets.base import CostFunction
from rlprune.budgets.holders import BY_MACS, Holders
from rlprune.budgets.metric import METRICS, Metric
from rlprune.budgets.units import MILLISECONDS
from rlprune.errors import BudgetError
from rlprune.inputs import ExampleInputs, batch_of, call, to_device
from rlprune.modes import evaluating

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_SHORTEST_TIMING_S = 1e-3
_MOST_CALLS_PER_TIMING = 50


@dataclass(frozen=True)
class LatencySettings:
    """How a latency is measured.

    Attributes:
        batch_size: Samples per forward.
        device: Where to run, e.g. ``"cpu"`` or ``"cuda"``.
        dtype: Floating-point type of weights and inputs.
        threads: CPU threads during the measurement; None keeps the current number.
        warmup: Untimed forwards of each network.
        repeats: Timed pairs of forwards.
    """

    batch_size: int = 1
    device: str = "cpu"
    dtype: str = "float32"
    threads: int | None = None
    warmup: int = 3
    repeats: int = 20


class LatencyMeter:
    """Times candidates side by side with the dense network.

    Every repeat times the dense network and the candidate one right after the other, in
    alternating order, and keeps the ratio of the two: whatever slows the machine down for a while
    slows both. The value is ``reference_ms * median(ratios)``, so that a limit of 70 % of the
    dense latency asks for a median ratio of at most 0.7, whatever the machine was doing when the
    reference was taken.

    Args:
        dense: The dense network (copied).
        inputs: Example inputs at the wanted batch size.
        settings: How to measure.
        reference_ms: The dense network's latency; measured when None.
    """

    def __init__(
        self,
        dense: nn.Module,
        inputs: ExampleInputs,
        settings: LatencySettings,
        reference_ms: float | None = None,
    ) -> None:
        self.settings = settings
        self.device = torch.device(settings.device)
        self.dtype = DTYPES[settings.dtype]
        self.inputs = to_device(inputs, self.device, self.dtype)
        self.dense = self._placed(dense)
        if reference_ms is None:
            with self._threads():
                self._warm_up(self.dense)
                times = [self._time(self.dense, 1) for _ in range(settings.repeats)]
            reference_ms = 1e3 * statistics.median(times)
        self.reference_ms = reference_ms

    def __call__(self, candidate: nn.Module, example_inputs: ExampleInputs) -> float:
        """Latency of a candidate in milliseconds; ``example_inputs`` are the meter's own."""
        return self.reference_ms * statistics.median(self.ratios(candidate))

    def with_reference(self, reference_ms: float) -> LatencyMeter:
        """The same meter stating its values against another reference."""
        other = copy.copy(self)
        other.reference_ms = reference_ms
        return other

    def ratios(self, candidate: nn.Module) -> list[float]:
        """Candidate time over dense time, one ratio per repeat."""
        candidate = self._placed(candidate)
        calls = self._calls_per_timing()
        ratios = []
        with evaluating(candidate), self._threads():
            self._warm_up(self.dense)
            self._warm_up(candidate)
            for repeat in range(self.settings.repeats):
                if repeat % 2:
                    own = self._time(candidate, calls)
                    dense = self._time(self.dense, calls)
                else:
                    dense = self._time(self.dense, calls)
                    own = self._time(candidate, calls)
                ratios.append(own / dense)
        return ratios

    def _calls_per_timing(self) -> int:
        """Forwards per timing: networks faster than the clock is steady are run several times."""
        wanted = _SHORTEST_TIMING_S / max(self.reference_ms / 1e3, 1e-9)
        return max(1, min(_MOST_CALLS_PER_TIMING, round(wanted)))

    def _placed(self, network: nn.Module) -> nn.Module:
        """An eval-mode copy of the network on the meter's device, in its type."""
        return copy.deepcopy(network).eval().to(self.device, self.dtype)

    def _warm_up(self, network: nn.Module) -> None:
        for _ in range(self.settings.warmup):
            self._time(network, 1)

    def _time(self, network: nn.Module, calls: int) -> float:
        """Seconds per forward, mean over ``calls`` forwards in a row."""
        with torch.inference_mode():
            self._wait()
            start = time.perf_counter()
            for _ in range(calls):
                call(network, self.inputs)
            self._wait()
            return (time.perf_counter() - start) / calls

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @contextmanager
    def _threads(self) -> Iterator[None]:
        before = torch.get_num_threads()
        if self.settings.threads is not None:
            torch.set_num_threads(self.settings.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def measure_latency(
    model: nn.Module, example_inputs: Any, settings: LatencySettings | None = None
) -> float:
    """Latency in milliseconds of a network on its own, without a dense network beside it."""
    settings = settings or LatencySettings()
    inputs = batch_of(example_inputs, settings.batch_size)
    return LatencyMeter(model, inputs, settings).reference_ms


@METRICS.register("latency")
class Latency(Metric):
    """Measured time of one forward pass, in milliseconds.

    Timed interleaved with the dense network (see :class:`LatencyMeter`). Measured values differ
    a little from run to run: searches under this budget repeat exactly only from their store.

    Args:
        limit: Share of the dense latency (``0.7``, ``"70%"``) or an absolute time (``3.5`` ms,
            ``"0.8 ms"``).
        batch_size: Samples per forward.
        device: Where to run.
        dtype: ``float32``, ``float64``, ``float16`` or ``bfloat16``.
        threads: CPU threads during the measurement; None keeps the current number.
        warmup: Untimed forwards of each network.
        repeats: Timed pairs of forwards.
        name: Shown in reports.

    Raises:
        BudgetError: A setting is outside its range, or the device is not there.
    """

    key: ClassVar[str] = "latency"
    title: ClassVar[str] = "latency"
    field: ClassVar[str] = "latency_ms"
    unit: ClassVar[str] = MILLISECONDS.name
    measured: ClassVar[bool] = True
    holders: ClassVar[Holders] = BY_MACS
    function = staticmethod(measure_latency)

    def __init__(
        self,
        limit: float | str = 0.7,
        batch_size: int = 1,
        device: str = "cpu",
        dtype: str = "float32",
        threads: int | None = None,
        warmup: int = 3,
        repeats: int = 20,
        name: str | None = None,
    ) -> None:
        super().__init__(limit, name)
        self.fn = self._unbound
        self.settings = LatencySettings(batch_size, device, dtype, threads, warmup, repeats)
        self._check(self.settings)

    def _check(self, settings: LatencySettings) -> None:
        counts: dict[str, int] = {
            "batch_size": settings.batch_size,
            "repeats": settings.repeats,
            "threads": 1 if settings.threads is None else settings.threads,
        }
        for key, value in counts.items():
            if value < 1:
                raise BudgetError(f"budget {self.name!r}: {key} must be at least 1, got {value}")
        if settings.warmup < 0:
            raise BudgetError(
                f"budget {self.name!r}: warmup must not be negative, got {settings.warmup}"
            )
        if settings.dtype not in DTYPES:
            raise BudgetError(
                f"budget {self.name!r}: dtype must be one of {', '.join(DTYPES)}, "
                f"got {settings.dtype!r}"
            )
        try:
            torch.empty(1, device=settings.device)
        except (RuntimeError, AssertionError) as error:
            raise BudgetError(
                f"budget {self.name!r}: device {settings.device!r} cannot be used here: {error}"
            ) from error

    def _bind(self, model: nn.Module, example_inputs: ExampleInputs) -> CostFunction:
        inputs = batch_of(example_inputs, self.settings.batch_size)
        return LatencyMeter(model, inputs, self.settings)

    def _unbound(self, model: nn.Module, example_inputs: Any) -> float:
        return measure_latency(model, example_inputs, self.settings)
