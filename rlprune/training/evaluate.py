"""Accuracy and loss of a network on labelled batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlprune.errors import DataError
from rlprune.modes import evaluating
from rlprune.training import precision
from rlprune.training.losses import logits_of

_BATCH = 256


@dataclass(frozen=True)
class Metrics:
    """What ``evaluate`` measured.

    Attributes:
        accuracy: Share of samples whose highest logit is the label's, in [0, 1].
        loss: Mean cross entropy in nats.
        count: Number of samples.
    """

    accuracy: float
    loss: float
    count: int


def evaluate(
    model: nn.Module,
    batches: tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]],
    *,
    device: torch.device | str | None = None,
    autocast: bool | str = False,
) -> Metrics:
    """Measure accuracy and cross entropy in eval mode; the model is left as it was.

    Args:
        model: A classifier.
        batches: ``(x, y)`` tensors, or an iterable of such batches.
        device: Where the batches go; None takes the device of the model's parameters.
        autocast: bfloat16 autocast: True, False, or ``"auto"``.

    Returns:
        Accuracy, loss and number of samples.

    Raises:
        DataError: There is no sample.
        TrainingError: The model does not return logits ``[N, classes]``.
    """
    target = torch.device(device) if device is not None else device_of(model)
    reduced = precision.use_bfloat16(autocast, target)
    images = precision.is_convolutional(model)
    correct = torch.zeros((), dtype=torch.int64, device=target)
    loss = torch.zeros((), dtype=torch.float64, device=target)
    count = 0
    with evaluating(model), torch.inference_mode(), precision.autocast(target, reduced):
        for x, y in _split(batches):
            x, y = x.to(target, non_blocking=True), y.to(target, non_blocking=True)
            logits = logits_of(model(precision.to_channels_last(x) if images else x))
            correct += (logits.argmax(1) == y).sum()
            loss += functional.cross_entropy(logits, y.long(), reduction="sum").double()
            count += len(y)
    if count == 0:
        raise DataError("evaluate: there is no sample to measure on")
    return Metrics(correct.item() / count, loss.item() / count, count)


def device_of(model: nn.Module) -> torch.device:
    """Device of the model's first parameter or buffer; the processor when it has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def _split(
    batches: tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]],
) -> Iterable[tuple[Tensor, Tensor]]:
    if isinstance(batches, (tuple, list)) and len(batches) == 2 and isinstance(batches[0], Tensor):
        x, y = batches
        return zip(x.split(_BATCH), y.split(_BATCH), strict=True)
    return batches
