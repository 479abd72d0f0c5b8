"""The loss of a step: the labels' and the distillation from a teacher's answers, mixed."""

from __future__ import annotations

import torch
from torch import Tensor

from rlprune.tasks import Rows, Task


def objective(
    task: Task,
    student: Rows,
    teacher: Rows | None,
    *,
    label_smoothing: float,
    alpha: float,
    temperature: float,
) -> Tensor:
    """``(1 - alpha) * loss + alpha * distillation``; the loss alone without a teacher.

    Args:
        task: Says what either is.
        student: The network's rows, with labels.
        teacher: The dense network's rows, or None.
        label_smoothing: Probability spread over all classes.
        alpha: Weight of the distillation.
        temperature: Temperature of the distillation.

    Returns:
        A scalar.
    """
    hard = task.loss(student, label_smoothing)
    if teacher is None:
        return hard
    return torch.lerp(hard, task.distillation(student, teacher, temperature), alpha)
