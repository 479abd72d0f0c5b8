"""Calibration data in one form, and the tensor a network answers with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from rlprune.errors import DataError
from rlprune.inputs import ExampleInputs, call

Batch = tuple[ExampleInputs, Tensor | None]
"""Network inputs and, where known, their labels."""


def as_batches(data: Any, batch_size: int = 128) -> list[Batch]:
    """Read calibration data in any of the forms users hold it in.

    Args:
        data: None; inputs as one tensor; an ``(inputs, labels)`` pair of tensors; an iterable of
            batches (each inputs, an ``(inputs, labels)`` pair, or a mapping of keyword arguments,
            whose ``labels`` entry is taken out); or an object with a ``calibration`` attribute
            that is, or returns, one of these.
        batch_size: Samples per batch, where the data is not batched yet.

    Returns:
        The batches, in order; empty for None.

    Raises:
        DataError: The data is none of these forms, or inputs and labels differ in length.
    """
    if data is None:
        return []
    if hasattr(data, "calibration"):
        found = data.calibration
        return as_batches(found() if callable(found) else found, batch_size)
    if isinstance(data, Tensor):
        return [(part, None) for part in data.split(batch_size)]
    if _is_pair(data):
        inputs, labels = data
        if len(inputs) != len(labels):
            raise DataError(f"{len(inputs)} inputs but {len(labels)} labels")
        return list(zip(inputs.split(batch_size), labels.split(batch_size), strict=True))
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes, Mapping)):
        return [_as_batch(item) for item in data]
    raise DataError(
        "calibration data must be a tensor of inputs, an (inputs, labels) pair of tensors, or an "
        f"iterable of batches; got {type(data).__name__}"
    )


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(item, Tensor) for item in value)
    )


def _as_batch(item: Any) -> Batch:
    if isinstance(item, Tensor):
        return item, None
    if isinstance(item, Mapping):
        inputs = {key: value for key, value in item.items() if key != "labels"}
        return inputs, item.get("labels")
    if isinstance(item, (list, tuple)) and len(item) == 2:
        inputs, labels = item
        if labels is None or isinstance(labels, Tensor):
            return inputs, labels
    if isinstance(item, (list, tuple)) and len(item) == 1:
        return item[0], None
    raise DataError(
        "a calibration batch must be inputs, an (inputs, labels) pair, or a mapping of keyword "
        f"arguments; got {type(item).__name__}"
    )


def answer(model: Any, inputs: ExampleInputs) -> Tensor:
    """Run a network and take the tensor it answers with.

    Args:
        model: The network.
        inputs: What it is called with.

    Returns:
        The output itself, its ``logits``, or the first tensor of a sequence or mapping.

    Raises:
        DataError: The output holds no tensor at its first level.
    """
    output = call(model, inputs)
    if isinstance(output, Tensor):
        return output
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    parts = output.values() if isinstance(output, Mapping) else output
    if isinstance(parts, Iterable):
        for part in parts:
            if isinstance(part, Tensor):
                return part
    raise DataError(f"the network's output, a {type(output).__name__}, holds no tensor to score")
