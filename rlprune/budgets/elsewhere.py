"""Costs that other programs measure on the network as an ONNX file: ONNX Runtime, or a device."""

from __future__ import annotations

import copy
import re
import shlex
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from rlprune.budgets.base import CostFunction
from rlprune.budgets.holders import BY_MACS, Holders
from rlprune.budgets.metric import METRICS, Metric
from rlprune.budgets.units import MILLISECONDS
from rlprune.errors import BudgetError
from rlprune.exporting import arguments, ready, save_onnx
from rlprune.inputs import ExampleInputs, batch_of, to_device

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_SHOWN = 300


def write_onnx(network: nn.Module, inputs: ExampleInputs, path: Path) -> None:
    """Write a network as ONNX, for inputs of this size.

    Args:
        network: The network; not changed.
        inputs: What it is called with.
        path: The file.
    """
    own = copy.deepcopy(network).cpu()
    args, kwargs = arguments(to_device(inputs, "cpu"))
    with ready(own):
        save_onnx(torch.export.export(own, args, kwargs), path)


class OnnxMeter:
    """Times networks in ONNX Runtime, each beside the dense one, as `LatencyMeter` does in PyTorch.

    Args:
        dense: The dense network.
        inputs: Example inputs at the wanted batch size.
        threads: Threads of an operator; None leaves it to ONNX Runtime.
        repeats: Timed pairs of runs.
    """

    def __init__(
        self, dense: nn.Module, inputs: ExampleInputs, threads: int | None, repeats: int
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise BudgetError(
                f"budget 'onnx_latency' needs ONNX Runtime ({error}): pip install onnxruntime"
            ) from error
        self._runtime, self._threads, self._repeats = onnxruntime, threads, repeats
        self.inputs = inputs
        self._dense = self._session(dense)
        self.reference_ms = 1e3 * statistics.median(self._time(self._dense) for _ in range(repeats))

    def __call__(self, candidate: nn.Module, example_inputs: ExampleInputs) -> float:
        """Milliseconds of a candidate; ``example_inputs`` are the meter's own."""
        own = self._session(candidate)
        ratios = []
        for _ in range(self._repeats):
            before = self._time(self._dense)
            ratios.append(self._time(own) / before)
        return self.reference_ms * statistics.median(ratios)

    def with_reference(self, reference_ms: float) -> OnnxMeter:
        """The same meter stating its values against another reference."""
        other = copy.copy(self)
        other.reference_ms = reference_ms
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxMeter:
        return copy.copy(self)  # sessions cannot be copied, and hold no state

    def _session(self, network: nn.Module) -> tuple[Any, dict[str, Any]]:
        options = self._runtime.SessionOptions()
        options.log_severity_level = 3
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        with tempfile.TemporaryDirectory(prefix="rlprune-") as folder:
            path = Path(folder) / "model.onnx"
            write_onnx(network, self.inputs, path)
            session = self._runtime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        tensors = torch.utils._pytree.tree_leaves(to_device(self.inputs, "cpu"))
        names = [item.name for item in session.get_inputs()]
        feeds = {n: t.numpy() for n, t in zip(names, tensors, strict=False)}
        for _ in range(3):
            session.run(None, feeds)
        return session, feeds

    def _time(self, made: tuple[Any, dict[str, Any]]) -> float:
        session, feeds = made
        start = time.perf_counter()
        session.run(None, feeds)
        return time.perf_counter() - start


@METRICS.register("onnx_latency")
class OnnxLatency(Metric):
    """Measured time of one run in ONNX Runtime on the processor, in milliseconds.

    Every candidate is exported, which takes seconds: give few ``evaluations``.

    Args:
        limit: Share of the dense latency or an absolute time (``"0.8 ms"``).
        batch_size: Samples per run.
        threads: Threads of an operator; None leaves it to ONNX Runtime.
        repeats: Timed pairs of runs.
        name: Shown in reports.

    Raises:
        BudgetError: A number is below 1.
    """

    key: ClassVar[str] = "onnx_latency"
    title: ClassVar[str] = "latency in ONNX Runtime"
    unit: ClassVar[str] = MILLISECONDS.name
    measured: ClassVar[bool] = True
    holders: ClassVar[Holders] = BY_MACS

    def __init__(
        self,
        limit: float | str = 0.7,
        batch_size: int = 1,
        threads: int | None = None,
        repeats: int = 20,
        name: str | None = None,
    ) -> None:
        self.batch_size, self.threads, self.repeats = batch_size, threads, repeats
        super().__init__(limit, name)
        if min(batch_size, repeats, 1 if threads is None else threads) < 1:
            raise BudgetError(f"budget {self.name!r}: batch_size, threads, repeats: at least 1")

    def function(self, model: nn.Module, example_inputs: Any) -> float:
        """Milliseconds of a network on its own."""
        inputs = batch_of(example_inputs, self.batch_size)
        return OnnxMeter(model, inputs, self.threads, self.repeats).reference_ms

    def _bind(self, model: nn.Module, example_inputs: ExampleInputs) -> CostFunction:
        inputs = batch_of(example_inputs, self.batch_size)
        return OnnxMeter(model, inputs, self.threads, self.repeats)


@METRICS.register("device")
class Device(Metric):
    """What a command of yours says of a network: a measurement on another machine, for example.

    The candidate is written as ONNX, ``{onnx}`` in the command is replaced by the file, and the
    last number that the command prints is the value. No shell runs it; ``ssh`` and ``adb`` do. On
    the command line: ``+budget.device.limit=70% '+budget.device.command="ssh pi t {onnx}"'``.

    Args:
        command: ``"ssh pi measure {onnx}"``, or a script that copies the file and times it.
        limit: Share of the dense network's value, or a number in the command's own unit.
        measured: Whether values differ from call to call, as a clock's do.
        timeout: Seconds that a call may take.
        name: Shown in reports.

    Raises:
        BudgetError: The command does not name ``{onnx}``, cannot be run, fails, prints no number or
            takes too long.
    """

    key: ClassVar[str] = "device"
    title: ClassVar[str] = "device"
    holders: ClassVar[Holders] = BY_MACS

    def __init__(
        self,
        command: str,
        limit: float | str = 0.7,
        measured: bool = True,
        timeout: float = 600.0,
        name: str | None = None,
    ) -> None:
        self.command, self.timeout = command, timeout
        super().__init__(limit, name)
        self.measured = measured  # type: ignore[misc]
        if "{onnx}" not in command:
            raise BudgetError(
                f"budget {self.name!r}: command {command!r} has no {{onnx}}, the network's file"
            )

    def function(self, model: nn.Module, example_inputs: Any) -> float:
        """Write the network, run the command, and read its number."""
        with tempfile.TemporaryDirectory(prefix="rlprune-") as folder:
            path = Path(folder) / "model.onnx"
            write_onnx(model, example_inputs, path)
            words = [word.replace("{onnx}", str(path)) for word in shlex.split(self.command)]
            try:
                done = subprocess.run(
                    words, capture_output=True, text=True, timeout=self.timeout, check=False
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise BudgetError(f"budget {self.name!r}: {words[0]}: {error}") from error
        said = (done.stderr or done.stdout).strip()[-_SHOWN:]
        if done.returncode:
            raise BudgetError(
                f"budget {self.name!r}: {words[0]} ends with {done.returncode}: {said}"
            )
        numbers = _NUMBER.findall(done.stdout)
        if not numbers:
            raise BudgetError(f"budget {self.name!r}: {words[0]} prints no number: {said!r}")
        return float(numbers[-1])

    def _bind(self, model: nn.Module, example_inputs: ExampleInputs) -> CostFunction:
        return self.function
