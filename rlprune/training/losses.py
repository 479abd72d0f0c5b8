"""Losses: cross entropy with label smoothing, and distillation from a teacher's outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rlprune.errors import TrainingError


def logits_of(output: Any) -> Tensor:
    """The class scores in a network's output, as float32.

    Args:
        output: A tensor ``[N, classes]``, or an object or mapping with ``logits``.

    Returns:
        Logits ``[N, classes]``.

    Raises:
        TrainingError: The output holds no such tensor.
    """
    found = output
    if isinstance(output, Mapping):
        found = output.get("logits")
    elif not isinstance(output, Tensor):
        found = getattr(output, "logits", None)
    if not isinstance(found, Tensor) or found.dim() != 2:
        shape = f" of shape {tuple(found.shape)}" if isinstance(found, Tensor) else ""
        raise TrainingError(
            f"the network returned {type(output).__name__}{shape}; classification needs logits "
            "[N, classes], as a tensor or under 'logits'"
        )
    return found.float()


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T^2 * KL(softmax(teacher / T) || softmax(student / T))`` (Hinton et al. 2015, section 2).

    Args:
        student: Logits ``[N, classes]``.
        teacher: Logits ``[N, classes]``.
        temperature: ``T``; the factor keeps gradients of one size as it changes.

    Returns:
        Mean over the batch, a scalar.
    """
    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=1)
    divergence = functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def objective(
    student: Tensor,
    labels: Tensor,
    teacher: Tensor | None,
    *,
    label_smoothing: float,
    alpha: float,
    temperature: float,
) -> Tensor:
    """``(1 - alpha) * cross entropy + alpha * distillation``; cross entropy without a teacher.

    Args:
        student: Logits ``[N, classes]``.
        labels: Class numbers ``[N]``.
        teacher: Logits ``[N, classes]``, or None.
        label_smoothing: Probability spread over all classes.
        alpha: Weight of the distillation loss.
        temperature: Temperature of the distillation loss.

    Returns:
        A scalar.
    """
    hard = functional.cross_entropy(student, labels, label_smoothing=label_smoothing)
    if teacher is None:
        return hard
    return torch.lerp(hard, distillation(student, teacher, temperature), alpha)
