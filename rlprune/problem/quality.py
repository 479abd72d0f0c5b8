"""Quality of a candidate without fine-tuning."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rlprune import tasks
from rlprune.batches import Batch, as_batches, is_pair, split
from rlprune.compensation import batch_statistics, recalibrate
from rlprune.errors import ConfigError, DataError, NotFiniteError, ScoreError
from rlprune.identity import changes, describe
from rlprune.inputs import map_tensors, to_device
from rlprune.modes import evaluating
from rlprune.problem.features import features_seen, last_linear
from rlprune.problem.kinds import Outputs, kind_of, needs_labels
from rlprune.tasks import Classification, Rows, Task
from rlprune.training import use_bfloat16

logger = logging.getLogger(__name__)

STATISTICS = ("batch", "recalibrate", "keep")
PRECISIONS = ("auto", "float32", "bfloat16")
MOST_VALUES = 1 << 26
"""Numbers kept of a network's answers, a quarter of a gigabyte: rows are drawn beyond it."""


class Quality(Protocol):
    """Scores a candidate: a network to a finite number, higher is better.

    A method ``identity()`` may say what the score depends on (see :mod:`rlprune.identity`).
    """

    def __call__(self, candidate: nn.Module) -> float:
        """Score a candidate."""


class DataQuality:
    """Scores a candidate's answers to held-out inputs against the dense network's or the labels.

    Removed units shift every statistic behind them, so the stored batch-normalisation statistics
    are useless before fine-tuning. By default each batch is normalised by its own statistics in
    the same pass that is scored, which costs no second forward.

    Args:
        dense: The dense network; evaluated once, when the first candidate is scored.
        data: Inputs with labels, in any form :func:`rlprune.batches.as_batches` reads.
        task: Says which rows of the answers are compared; None infers it from the first batch.
        kind: One of :data:`rlprune.problem.kinds.KINDS`, or a metric of the task.
        batch_size: Samples per forward.
        statistics: ``"batch"``: normalise by the batch at hand; ``"recalibrate"``: recompute
            running statistics on ``calibration`` first; ``"keep"``: use those of the candidate.
        calibration: Data for ``"recalibrate"``.
        precision: ``"float32"``, ``"bfloat16"`` (autocast), or ``"auto"``: bfloat16 where the
            processor has instructions for it.
        channels_last: Whether to lay out images channels last.

    Raises:
        ConfigError: A setting is unknown.
        DataError: There is no data, or labels are needed and missing.
    """

    def __init__(
        self,
        dense: nn.Module,
        data: Any,
        *,
        task: Task | str | None = None,
        kind: str = "logits",
        batch_size: int = 256,
        statistics: str = "batch",
        calibration: Any = None,
        precision: str = "auto",
        channels_last: bool = True,
    ) -> None:
        for value, name, valid in (
            (statistics, "statistics", STATISTICS),
            (precision, "precision", PRECISIONS),
        ):
            if value not in valid:
                raise ConfigError(f"{name} {value!r} is unknown; choose one of {', '.join(valid)}")
        if batch_size < 2:
            raise ConfigError(f"batch_size must be at least 2, got {batch_size}")
        self.kind = kind
        self.statistics = statistics
        self.channels_last = channels_last
        device = next((item.device for item in dense.parameters()), torch.device("cpu"))
        self.bfloat16 = use_bfloat16(precision, device)
        self._device = device
        self._batches = _batches(data, batch_size, device, channels_last)
        if not self._batches:
            raise DataError("scoring candidates needs held-out data; pass data=... or score=...")
        self.task = tasks.resolve(task) or _obvious(self._batches[0])
        self._kind = kind_of(kind, self.task)
        if needs_labels(kind) and any(labels is None for _, labels in self._batches):
            raise DataError(f"quality {kind!r} needs labels; choose 'logits' for unlabelled inputs")
        self._calibration = _batches(calibration, batch_size, device, channels_last)
        if statistics == "recalibrate" and not self._calibration:
            raise DataError("statistics 'recalibrate' needs calibration data")
        self._picks: list[Tensor | None] | None = None
        if kind == "features":
            last_linear(dense)
        self._network = dense

    @cached_property
    def _dense(self) -> Outputs:
        """The dense network's answers in float32, computed when first needed."""
        with evaluating(self._network):
            return self._outputs(self._network, bfloat16=False)

    def identity(self) -> Any:
        """Settings and data; the dense network is the problem's."""
        return {
            "task": self.task,
            "kind": self.kind,
            "statistics": self.statistics,
            "bfloat16": self.bfloat16,
            "channels_last": self.channels_last,
            "batches": self._batches,
            "calibration": self._calibration,
        }

    def __call__(self, candidate: nn.Module) -> float:
        """Score a candidate; its parameters stay, running statistics may be recomputed.

        Raises:
            ScoreError: The candidate cannot be run, or the score is not finite.
        """
        with torch.no_grad():
            if self.statistics == "recalibrate":
                with self._autocast(self.bfloat16):
                    recalibrate(candidate, self._calibration)
            dense = self._dense  # its answers come first: they decide which rows are kept
            in_batch = self.statistics == "batch"
            with batch_statistics(candidate) if in_batch else evaluating(candidate):
                outputs = self._outputs(candidate, self.bfloat16)
            return float(self._kind(self.task, outputs, dense))

    def _outputs(self, network: nn.Module, bfloat16: bool) -> Outputs:
        parts = []
        with (
            torch.no_grad(),
            self._autocast(bfloat16),
            features_seen(network, self.kind == "features") as seen,
        ):
            for place, (inputs, labels) in enumerate(self._batches):
                answer = self.task.answer(network, inputs)
                features = seen.pop() if seen else None
                rows = self._kept(place, self.task.rows(answer, labels, inputs))
                parts.append(Outputs(rows, features))
        return Outputs.of(parts)

    def _kept(self, place: int, rows: Rows) -> Rows:
        """The rows of a batch that are compared: all, or as many drawn as there is room for."""
        if self._picks is None:
            self._picks = [None] * len(self._batches)
        room = max(1, MOST_VALUES // len(self._batches) // rows.answers.shape[1])
        if len(rows) <= room:
            return rows
        chosen = self._picks[place]
        if chosen is None:
            generator = torch.Generator().manual_seed(place)
            drawn = torch.randperm(len(rows), generator=generator)[:room].sort().values
            chosen = self._picks[place] = drawn.to(rows.answers.device)
        return rows.pick(chosen)

    def _autocast(self, enabled: bool) -> AbstractContextManager[Any]:
        if not enabled:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)


class ScoreQuality:
    """A user's ``score(model) -> float`` as a quality.

    Args:
        score: The function, higher is better; it sees a copy of the candidate, in eval mode.
        calibration: With it, running statistics are recomputed before every call.
    """

    def __init__(self, score: Callable[[nn.Module], Any], calibration: Any = None) -> None:
        if not callable(score):
            raise ConfigError(f"score must be a function of the network, got {score!r}")
        self.score = score
        self._calibration = as_batches(calibration)
        self._seen = False

    def identity(self) -> Any:
        """The function and the calibration data."""
        return {"score": self.score, "calibration": self._calibration}

    def __call__(self, candidate: nn.Module) -> float:
        """Score a candidate.

        Raises:
            ScoreError: The function overwrites its own data.
        """
        if self._calibration:
            recalibrate(candidate, self._calibration)
        if not self._seen:
            self._seen = True
            return self._first(candidate)
        return self._value(copy.deepcopy(candidate))

    def _value(self, candidate: nn.Module) -> float:
        with evaluating(candidate), torch.no_grad():
            return float(self.score(candidate))

    def _first(self, candidate: nn.Module) -> float:
        """Score a candidate, and look at what that has changed."""
        before, given = describe(self.score), copy.deepcopy(candidate)
        value = self._value(given)
        told = changes(before, describe(self.score))
        spoilt = [line for line in told if line.endswith(".content changed")]
        if spoilt:
            raise ScoreError(
                f"score overwrites its own data ({spoilt[0]}), so that every candidate would be "
                "scored on other data; let it work on a copy"
            )
        weights = candidate.state_dict()
        changed = [
            name
            for name, tensor in given.state_dict().items()
            if name not in weights or not _same(tensor, weights[name])
        ]
        if changed:
            logger.warning(
                "score changes the network that it is given (%s): that is a copy, nothing else is "
                "affected", changed[0],
            )  # fmt: skip
        return value


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def checked(quality: Quality, candidate: nn.Module, widths: tuple[int, ...]) -> float:
    """Score a candidate and insist on a finite number.

    Raises:
        ScoreError: The score raised or is not finite (:class:`NotFiniteError`); names the
            candidate.
    """
    where = f"the candidate with widths {list(widths)}"
    try:
        value = float(quality(candidate))
    except ScoreError:
        raise
    except Exception as error:
        raise ScoreError(f"scoring {where} raised {type(error).__name__}: {error}") from error
    if not math.isfinite(value):
        raise NotFiniteError(f"the score of {where} is {value}; it must be a finite number")
    return value


def _obvious(batch: Batch) -> Task:
    """The task a batch stands for; classification where there are no labels."""
    inputs, labels = batch
    return Classification() if labels is None else tasks.infer(inputs, labels)


def _batches(data: Any, batch_size: int, device: torch.device, channels_last: bool) -> list[Batch]:
    def place(tensor: Tensor) -> Tensor:
        if channels_last and tensor.ndim == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    # Equal parts: a short last batch would have poorer statistics than the others.
    batches = split(data, batch_size, even=True) if is_pair(data) else as_batches(data, batch_size)
    return [
        (map_tensors(to_device(inputs, device), place), None if y is None else y.to(device))
        for inputs, y in batches
    ]
