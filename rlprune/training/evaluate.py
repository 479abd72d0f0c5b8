"""The metrics of a task and its loss, measured on labelled batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlprune import tasks
from rlprune.batches import Batch, is_pair, split
from rlprune.errors import DataError
from rlprune.inputs import to_device
from rlprune.modes import evaluating
from rlprune.tasks import Task
from rlprune.tasks.base import COUNT, added
from rlprune.training import precision

_BATCH = 256


@dataclass(frozen=True)
class Measured:
    """What ``evaluate`` measured.

    Attributes:
        values: The task's metrics by name, and ``loss``, the mean over the rows.
        count: Number of rows: samples, tokens that count, labelled pixels.
    """

    values: dict[str, float]
    count: int

    def __getitem__(self, name: str) -> float:
        """One of the values."""
        return self.values[name]


def evaluate(
    model: nn.Module,
    batches: Any,
    *,
    task: Task | str | None = None,
    device: torch.device | str | None = None,
    autocast: bool | str = False,
) -> Measured:
    """Measure a network on labelled samples in eval mode; the model is left as it was.

    Args:
        model: The network.
        batches: ``(inputs, labels)``, or an iterable of such batches.
        task: What the network is for; None infers it from the first batch.
        device: Where the batches go; None takes the device of the model's parameters.
        autocast: bfloat16 autocast: True, False, or ``"auto"``.

    Returns:
        The task's metrics and loss, and the number of rows.

    Raises:
        DataError: There is no sample, or the network's answer does not suit the task.
    """
    chosen, sums = tallied(model, batches, task=task, device=device, autocast=autocast)
    return measured(chosen, sums)


def tallied(
    model: nn.Module,
    batches: Any,
    *,
    task: Task | str | None = None,
    device: torch.device | str | None = None,
    autocast: bool | str = False,
) -> tuple[Task | None, dict[str, Tensor]]:
    """The sums that :func:`evaluate` measures by; arguments and errors as there.

    Returns:
        The task, None where there is no batch to infer it from, and its sums over the rows.
    """
    target = torch.device(device) if device is not None else device_of(model)
    reduced = precision.use_bfloat16(autocast, target)
    images = precision.is_convolutional(model)
    chosen = tasks.resolve(task)
    sums: dict[str, Tensor] = {}
    with evaluating(model), torch.inference_mode(), precision.autocast(target, reduced):
        for inputs, labels in _batches(batches):
            if chosen is None:
                chosen = tasks.infer(inputs, labels)
            if labels is None:
                raise DataError("evaluate: the samples have no labels to measure on")
            inputs = to_device(inputs, target)
            labels = labels.to(target, non_blocking=True)
            answer = chosen.answer(model, precision.laid_out(inputs) if images else inputs)
            sums = added(sums, chosen.tally(chosen.rows(answer, labels, inputs)))
    return chosen, sums


def measured(task: Task | None, sums: dict[str, Tensor]) -> Measured:
    """What sums over rows say.

    Raises:
        DataError: There is no row.
    """
    if task is None or not sums or not sums[COUNT].item():
        raise DataError("evaluate: there is no sample to measure on")
    return Measured(task.measures(sums), int(sums[COUNT].item()))


def device_of(model: nn.Module) -> torch.device:
    """Device of the model's first parameter or buffer; the processor when it has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def _batches(batches: Any) -> Iterable[Batch]:
    return split(batches, _BATCH) if is_pair(batches) else batches
