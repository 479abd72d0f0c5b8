"""Classification: one class per row. Images, texts and plain numbers differ only in their name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from rlprune.errors import DataError
from rlprune.inputs import ExampleInputs
from rlprune.tasks.base import COUNT, LOSS, Rows, Sums, Task
from rlprune.tasks.metric import SHARE, Metric


class Classes(Task):
    """A task whose rows are scores of classes: cross entropy, KL divergence."""

    classes = True

    def loss(self, rows: Rows, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross entropy in nats."""
        assert rows.labels is not None
        return functional.cross_entropy(
            rows.answers, rows.labels.long(), label_smoothing=label_smoothing
        )

    def distillation(self, student: Rows, teacher: Rows, temperature: float) -> Tensor:
        """``T^2 * KL(softmax(teacher / T) || softmax(student / T))`` (Hinton et al. 2015).

        The factor keeps gradients of one size as the temperature changes (section 2).
        """
        guess = functional.log_softmax(student.answers / temperature, dim=1)
        target = functional.log_softmax(teacher.answers / temperature, dim=1)
        divergence = functional.kl_div(guess, target, reduction="batchmean", log_target=True)
        return temperature**2 * divergence

    def tally(self, rows: Rows) -> Sums:
        """Cross entropy, right answers, rows."""
        assert rows.labels is not None
        labels = rows.labels.long()
        total = functional.cross_entropy(rows.answers, labels, reduction="sum")
        right = (rows.answers.argmax(1) == labels).sum()
        return {LOSS: total.double(), "right": right, COUNT: torch.tensor(len(rows))}

    def check_classes(
        self, labels: Tensor, outputs: int | None, where: str, ignored: Tensor | None = None
    ) -> None:
        """Insist on integers from 0 to ``outputs - 1``, ``ignored`` entries aside."""
        if labels.is_floating_point():
            raise DataError(f"{where}: labels are {labels.dtype}, expected integer class numbers")
        counted = labels if ignored is None else labels[~ignored]
        if outputs is None or not counted.numel():
            return
        low, high = int(counted.min()), int(counted.max())
        if low < 0 or high >= outputs:
            wrong = low if low < 0 else high
            position = int((labels == wrong).nonzero()[0][0])
            raise DataError(
                f"{where}: sample {position} has label {wrong}, but with {outputs} classes labels "
                f"go from 0 to {outputs - 1}; renumber them or set num_classes"
            )


class Classification(Classes):
    """One class per sample: answers ``[N, classes]``, labels ``[N]``."""

    name: ClassVar[str] = "classification"
    metrics = (Metric("accuracy", "accuracy", unit=SHARE),)

    def rows(
        self, answer: Tensor, labels: Tensor | None = None, inputs: ExampleInputs | None = None
    ) -> Rows:
        """One row per sample."""
        if answer.ndim != 2:
            raise DataError(
                f"{self.name}: the network's answer has shape {tuple(answer.shape)}; classes need "
                "one row of scores per sample, [N, classes], as a tensor or under 'logits'"
            )
        return Rows(answer.float(), labels)

    def measures(self, sums: Sums) -> dict[str, float]:
        """Share of right answers, and the mean cross entropy."""
        count = sums[COUNT].item()
        return {"accuracy": sums["right"].item() / count, LOSS: sums[LOSS].item() / count}

    def outputs(self, labels: Tensor) -> int | None:
        """The highest class number and one more."""
        return None if labels.is_floating_point() else int(labels.max()) + 1

    def check(
        self, labels: Tensor, outputs: int | None, where: str, names: tuple[str, ...] | None = None
    ) -> None:
        """Labels are integers ``[N]`` below the number of classes."""
        if labels.ndim != 1:
            raise DataError(
                f"{where}: labels have shape {tuple(labels.shape)}; {self.name} needs one class "
                "number per sample, [N]"
            )
        self.check_classes(labels, outputs, where)

    def strata(self, labels: Tensor) -> Tensor | None:
        """The classes."""
        return labels


class ImageClassification(Classification):
    """One class per image."""

    name = "image_classification"


class TextClassification(Classification):
    """One class per text; padding is the network's business, which is given the mask."""

    name = "text_classification"
    recipe: ClassVar[Mapping[str, Any]] = {
        "optimizer": "adamw", "lr": 5e-4, "weight_decay": 0.01, "batch_size": 32, "grad_clip": 1.0,
    }  # fmt: skip
