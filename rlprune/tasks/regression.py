"""Regression: one or several numbers per sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from rlprune.errors import ConfigError, DataError
from rlprune.inputs import ExampleInputs
from rlprune.tasks.base import COUNT, LOSS, Rows, Sums, Task
from rlprune.tasks.metric import Metric

_STRATA = 10


class Regression(Task):
    """Numbers per sample: answers and labels ``[N]`` or ``[N, targets]``; squared error.

    Args:
        scale: What one unit of the labels is in the target's own unit, where labels were
            standardised: their standard deviation, one for all targets or one for each. Errors are
            shown in the target's unit.
        unit: The target's unit, for reports.
    """

    name: ClassVar[str] = "regression"

    def __init__(self, scale: float | Sequence[float] = 1.0, unit: str = "") -> None:
        scales = (scale,) if isinstance(scale, (int, float)) else tuple(scale)
        if not scales or not all(each > 0 for each in scales):
            raise ConfigError(f"regression: scale={scale} must be positive")
        self.scale, self.unit = tuple(float(each) for each in scales), unit

    @property
    def metrics(self) -> tuple[Metric, ...]:  # type: ignore[override]
        """R2 decides; mean squared and mean absolute error in the target's unit."""
        square = f"{self.unit}^2" if self.unit else ""
        return (
            Metric("r2", "R2"),
            Metric("mse", "mean squared error", higher_is_better=False, unit=square),
            Metric("mae", "mean absolute error", higher_is_better=False, unit=self.unit),
        )

    def rows(
        self, answer: Tensor, labels: Tensor | None = None, inputs: ExampleInputs | None = None
    ) -> Rows:
        """One row per sample."""
        table = answer.float().reshape(len(answer), -1)
        if labels is None:
            return Rows(table)
        wanted = labels.float().reshape(len(labels), -1)
        if wanted.shape != table.shape:
            raise DataError(
                f"{self.name}: the network answers with {tuple(answer.shape)} to labels "
                f"{tuple(labels.shape)}; it must return as many numbers per sample as there are "
                f"targets, {wanted.shape[1]}"
            )
        return Rows(table, wanted)

    def loss(self, rows: Rows, label_smoothing: float = 0.0) -> Tensor:
        """Mean squared error; there is nothing to smooth."""
        assert rows.labels is not None
        return (rows.answers - rows.labels).square().mean()

    def distillation(self, student: Rows, teacher: Rows, temperature: float) -> Tensor:
        """Mean squared difference of the answers; numbers have no temperature."""
        return (student.answers - teacher.answers).square().mean()

    def tally(self, rows: Rows) -> Sums:
        """Errors, and what the variance of the labels follows from, by target."""
        assert rows.labels is not None
        labels = rows.labels.double()
        error = rows.answers.double() - labels
        return {
            LOSS: error.square().mean(1).sum(),
            COUNT: torch.tensor(len(rows)),
            "square": error.square().sum(0),
            "absolute": error.abs().sum(0),
            "labels": labels.sum(0),
            "squared labels": labels.square().sum(0),
        }

    def measures(self, sums: Sums) -> dict[str, float]:
        """R2, averaged over targets; errors in the target's unit; the loss in the labels'."""
        count = sums[COUNT].item()
        scale = torch.tensor(self.scale, dtype=torch.float64, device=sums["square"].device)
        spread = sums["squared labels"] - sums["labels"].square() / count
        explained = 1 - sums["square"] / spread.clamp_min(1e-12)
        return {
            "r2": explained.mean().item(),
            "mse": (scale**2 * sums["square"]).mean().item() / count,
            "mae": (scale * sums["absolute"]).mean().item() / count,
            LOSS: sums[LOSS].item() / count,
        }

    def outputs(self, labels: Tensor) -> int | None:
        """One number per target."""
        return 1 if labels.ndim == 1 else labels.shape[1:].numel()

    def check(
        self, labels: Tensor, outputs: int | None, where: str, names: tuple[str, ...] | None = None
    ) -> None:
        """Labels are finite, and as many per sample as the network answers with."""
        bad = ~torch.isfinite(labels.double()).reshape(len(labels), -1).all(1)
        if bool(bad.any()):
            position = int(bad.nonzero()[0])
            raise DataError(
                f"{where}: sample {position} has the label {labels[position].tolist()}; leave out "
                "samples whose target is not a finite number"
            )
        found = self.outputs(labels)
        if outputs is not None and found != outputs:
            raise DataError(
                f"{where}: labels have {found} targets per sample, expected {outputs}; give them "
                "in one shape for all splits"
            )

    def strata(self, labels: Tensor) -> Tensor | None:
        """Tenths of the first target's order, so that every draw spans its range."""
        first = labels.reshape(len(labels), -1)[:, 0]
        ranks = first.argsort(stable=True).argsort(stable=True)
        return ranks * _STRATA // len(first)
