"""Many scores of one candidate from few forwards, each with what it would cost alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from rlprune.batches import as_batches, cut, split
from rlprune.bench.workbench import Workbench
from rlprune.compaction import Workspace
from rlprune.compensation import Context, Method, batch_statistics, methods, recalibrate
from rlprune.errors import ConfigError
from rlprune.inputs import to_device
from rlprune.locate import locate
from rlprune.modes import evaluating
from rlprune.plan import Plan
from rlprune.problem import Outputs, features_seen, kind_of
from rlprune.training import laid_out, use_bfloat16

STATISTICS = ("batch", "recalibrate")


class Scorer:
    """Scores candidates in every way a study asks for.

    Scores are computed on the first ``max(images)`` held-out samples; smaller numbers of images
    are prefixes of them, batch by batch the same forwards.

    Args:
        bench: The problem.

    Attributes:
        unseen: Held-out samples ``(inputs, labels)`` no score uses.
        prepare_seconds: Compensation -> seconds of what it computes once per network.

    Raises:
        ConfigError: A kind, a statistic or a method is unknown, or too few samples are held out.
    """

    def __init__(self, bench: Workbench) -> None:
        options = bench.options
        self.task = bench.data.task
        self.kinds = tuple(options["kinds"])
        self._score = {kind: kind_of(kind, self.task) for kind in self.kinds}
        self.statistics = _known(options["statistics"], STATISTICS, "statistics")
        self.images = sorted(int(count) for count in options["images"])
        self._job = bench.job
        self._size = min(self._job.spec.evaluator.batch_size, self.images[0])
        held_out = bench.data.holdout
        most, total = self.images[-1], len(held_out[1])
        if total <= most:
            raise ConfigError(
                f"bench.images={self.images}: {total} samples are held out, and those the scores "
                "leave measure the network after fine-tuning; raise data.holdout or lower images"
            )
        wrong = [count for count in self.images if count % self._size]
        if wrong:
            raise ConfigError(f"bench.images: {wrong[0]} is not a multiple of {self._size}")
        self.unseen = cut(held_out, slice(most, None))
        self._batches = [
            (self._placed(inputs), None if labels is None else labels.to(self._job.device))
            for inputs, labels in split(cut(held_out, slice(most)), self._size)
        ]
        self._bfloat16 = use_bfloat16(self._job.spec.evaluator.precision, self._job.device)
        calibration = as_batches(self._job.calibration, self._job.spec.evaluator.batch_size)
        self._calibration = [(self._placed(part), labels) for part, labels in calibration]
        self._plain_calibration = calibration
        self._workspace = Workspace(self._job.groups)
        self._compensations = {
            name: methods([_method(entry) for entry in chosen])
            for name, chosen in options["compensations"].items()
        }
        with evaluating(self._job.dense):
            self._dense = self._forward(self._job.dense, bfloat16=False)[0]
        self.prepare_seconds = {name: self._prepare(name) for name in self._compensations}

    def score(self, plan: Plan) -> list[dict[str, Any]]:
        """Every score of a plan.

        Returns:
            Rows with ``kind``, ``compensation``, ``statistics``, ``images``, ``value`` (higher is
            better) and ``seconds`` for building, compensating, recalibrating and scoring.
        """
        rows = []
        for name in self._compensations:
            for statistics in self.statistics:
                rows += self._scores(plan, name, statistics)
        return rows

    def _scores(self, plan: Plan, name: str, statistics: str) -> list[dict[str, Any]]:
        started = time.perf_counter()
        candidate = self._build(plan, name)
        if statistics == "recalibrate":
            with torch.no_grad(), self._autocast(self._bfloat16):
                recalibrate(candidate, self._calibration)
        spent = time.perf_counter() - started
        inside = batch_statistics(candidate) if statistics == "batch" else evaluating(candidate)
        with inside:
            outputs, times = self._forward(candidate, self._bfloat16)
        rows = []
        for count in self.images:
            forward = spent + sum(times[: count // self._size])
            for kind in self.kinds:
                value, own = self._value(kind, outputs, count)
                rows.append(
                    {
                        "kind": kind,
                        "compensation": name,
                        "statistics": statistics,
                        "images": count,
                        "value": value,
                        "seconds": forward + own,
                    }
                )
        return rows

    def _value(self, kind: str, outputs: list[Outputs], count: int) -> tuple[float, float]:
        """A score on the first images, and the seconds of its arithmetic."""
        started = time.perf_counter()
        batches = count // self._size
        candidate, dense = Outputs.of(outputs[:batches]), Outputs.of(self._dense[:batches])
        value = float(self._score[kind](self.task, candidate, dense))
        return value, time.perf_counter() - started

    def _build(self, plan: Plan, name: str) -> nn.Module:
        candidate = self._workspace.build(plan)
        context = Context(self._job.groups, plan, candidate, self._plain_calibration)
        for method in self._compensations[name]:
            method.apply(context)
        return candidate

    def _prepare(self, name: str) -> float:
        """Let methods compute what they need once; the seconds beyond those of a second plan."""
        plan = Plan.uniform(self._job.groups, 0.5)
        times = []
        for _ in range(2):
            started = time.perf_counter()
            self._build(plan, name)
            times.append(time.perf_counter() - started)
        return max(times[0] - times[1], 0.0)

    def _forward(self, network: nn.Module, bfloat16: bool) -> tuple[list[Outputs], list[float]]:
        parts, times = [], []
        with (
            torch.no_grad(),
            self._autocast(bfloat16),
            features_seen(network, "features" in self.kinds) as seen,
        ):
            for inputs, labels in self._batches:
                started = time.perf_counter()
                answer = self.task.answer(network, inputs)
                rows = self.task.rows(answer, labels, inputs)
                parts.append(Outputs(rows, seen.pop() if seen else None))
                times.append(time.perf_counter() - started)
        return parts, times

    def _autocast(self, enabled: bool) -> torch.autocast:
        return torch.autocast(self._job.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _placed(self, inputs: Any) -> Any:
        placed = to_device(inputs, self._job.device)
        return laid_out(placed) if self._job.spec.evaluator.channels_last else placed


def _known(chosen: Sequence[str], valid: Sequence[str], option: str) -> tuple[str, ...]:
    wrong = [name for name in chosen if name not in valid]
    if wrong:
        raise ConfigError(f"bench.{option}: {wrong[0]!r} is none of {', '.join(valid)}")
    return tuple(chosen)


def _method(entry: Any) -> Method | str:
    """A method's name, or ``_target_`` with its arguments."""
    if not isinstance(entry, Mapping):
        return str(entry)
    options = {key: value for key, value in entry.items() if key != "_target_"}
    if "_target_" not in entry:
        raise ConfigError(f"bench.compensations: {dict(entry)} has no _target_")
    made: Method = locate(str(entry["_target_"]))(**options)
    return made
