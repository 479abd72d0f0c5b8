"""Semantic segmentation: one class per pixel."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from rlprune.errors import DataError
from rlprune.inputs import ExampleInputs
from rlprune.tasks.base import COUNT, LOSS, Rows, Sums
from rlprune.tasks.classification import Classes
from rlprune.tasks.metric import SHARE, Metric


class Segmentation(Classes):
    """One class per pixel: answers ``[N, classes, H, W]``, label maps ``[N, H, W]``.

    Answers at another resolution than the labels (SegFormer's, at a quarter) are interpolated.

    Args:
        ignore: Label of pixels that belong to no class; negative labels are left out too.
    """

    name: ClassVar[str] = "segmentation"
    metrics = (
        Metric("mean_iou", "mean IoU", unit=SHARE),
        Metric("pixel_accuracy", "pixel accuracy", unit=SHARE),
    )

    def __init__(self, ignore: int = 255) -> None:
        self.ignore = ignore

    def rows(
        self, answer: Tensor, labels: Tensor | None = None, inputs: ExampleInputs | None = None
    ) -> Rows:
        """One row per pixel that has a label."""
        if answer.ndim != 4:
            raise DataError(
                f"{self.name}: the network's answer has shape {tuple(answer.shape)}; it must be "
                "[N, classes, H, W], as a tensor or under 'logits' or 'out'"
            )
        answer = answer.float()
        if labels is None:
            return Rows(answer.movedim(1, -1).flatten(0, 2))
        if labels.shape[-2:] != answer.shape[-2:]:
            answer = functional.interpolate(
                answer, labels.shape[-2:], mode="bilinear", align_corners=False
            )
        counted = ~self._ignored(labels)
        return Rows(answer.movedim(1, -1)[counted], labels[counted])

    def tally(self, rows: Rows) -> Sums:
        """Cross entropy, and how often each class (row) was taken for each other (column)."""
        assert rows.labels is not None
        classes = rows.answers.shape[1]
        labels = rows.labels.long()
        pairs = labels * classes + rows.answers.argmax(1)
        return {
            LOSS: functional.cross_entropy(rows.answers, labels, reduction="sum").double(),
            COUNT: torch.tensor(len(rows)),
            "confusion": pairs.bincount(minlength=classes**2).view(classes, classes),
        }

    def measures(self, sums: Sums) -> dict[str, float]:
        """Intersection over union, averaged over the classes that occur, and right pixels."""
        confusion = sums["confusion"].double()
        count = sums[COUNT].item()
        common = confusion.diagonal()
        union = confusion.sum(0) + confusion.sum(1) - common
        occurs = union > 0
        return {
            "mean_iou": (common[occurs] / union[occurs]).mean().item(),
            "pixel_accuracy": common.sum().item() / count,
            LOSS: sums[LOSS].item() / count,
        }

    def outputs(self, labels: Tensor) -> int | None:
        """The highest class number and one more."""
        if labels.is_floating_point():
            return None
        counted = labels[~self._ignored(labels)]
        return int(counted.max()) + 1 if counted.numel() else None

    def check(
        self, labels: Tensor, outputs: int | None, where: str, names: tuple[str, ...] | None = None
    ) -> None:
        """Labels are integer maps ``[N, H, W]`` below the number of classes, or ignored."""
        if labels.ndim != 3:
            raise DataError(
                f"{where}: labels have shape {tuple(labels.shape)}; {self.name} needs a map of "
                "class numbers per image, [N, H, W]"
            )
        self.check_classes(labels, outputs, where, self._ignored(labels))

    def _ignored(self, labels: Tensor) -> Tensor:
        return (labels == self.ignore) | (labels < 0)
