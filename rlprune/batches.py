"""Calibration data in one form, and the tensor a network answers with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from rlprune.errors import DataError
from rlprune.inputs import ExampleInputs, call_safely, map_tensors, tensors_in

Batch = tuple[ExampleInputs, Tensor | None]
"""Network inputs and, where known, their labels."""

LABELS = ("labels", "label")
"""Keys of a mapping that hold labels instead of an argument of the network."""


def as_batches(data: Any, batch_size: int = 128) -> list[Batch]:
    """Read calibration data in any of the forms users hold it in.

    Args:
        data: None; inputs as one tensor; an ``(inputs, labels)`` pair, labels a tensor and inputs
            a tensor or a nest of them; a mapping of keyword arguments; an iterable of batches (see
            :func:`unpack`); or an object with a ``calibration`` attribute that is, or returns, one
            of these.
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
    if isinstance(data, (Tensor, Mapping)):
        return split(unpack(data), batch_size)
    if is_pair(data):
        return split(data, batch_size)
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes)):
        return [unpack(item) for item in data]
    raise DataError(
        "calibration data must be a tensor of inputs, an (inputs, labels) pair of tensors, or an "
        f"iterable of batches; got {type(data).__name__}"
    )


def split(samples: Batch, batch_size: int, *, even: bool = False) -> list[Batch]:
    """Cut samples into batches.

    Columns of a text that are padding in the whole batch are dropped.

    Args:
        samples: Inputs and labels, samples along the first dimension of every tensor.
        batch_size: Samples per batch.
        even: Make batches as equal as they can be instead of a small last one.

    Raises:
        DataError: Inputs and labels differ in length.
    """
    inputs, labels = samples
    sizes = {len(tensor) for tensor in tensors_in(inputs) if tensor.ndim}
    if labels is not None:
        sizes.add(len(labels))
    if len(sizes) != 1:
        given = "no labels" if labels is None else f"{len(labels)} labels"
        lengths = " and ".join(str(len(t)) for t in tensors_in(inputs) if t.ndim)
        raise DataError(f"{lengths} inputs but {given}")
    total = sizes.pop()
    size = -(-total // -(-total // batch_size)) if even and total else batch_size
    return [trimmed(cut(samples, slice(at, at + size))) for at in range(0, total, size)]


def cut(samples: Batch, chosen: Any) -> Batch:
    """Some of the samples: an index, slice or tensor of indices along the first dimension."""
    inputs, labels = samples
    part = map_tensors(inputs, lambda tensor: tensor[chosen] if tensor.ndim else tensor)
    return part, None if labels is None else labels[chosen]


def trimmed(batch: Batch) -> Batch:
    """The batch without the columns at the end that its ``attention_mask`` excludes for all."""
    inputs, labels = batch
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        return batch
    used = mask.bool().any(0).nonzero()
    length, width = int(used[-1]) + 1 if len(used) else 1, mask.shape[1]
    if length == width:
        return batch

    def shorten(tensor: Tensor) -> Tensor:
        return tensor[:, :length] if tensor.ndim > 1 and tensor.shape[1] == width else tensor

    return map_tensors(inputs, shorten), None if labels is None else shorten(labels)


def is_pair(value: Any) -> bool:
    """Whether a value is ``(inputs, labels)``: labels a tensor, inputs one or a nest of them."""
    if not (isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[1], Tensor)):
        return False
    inputs = value[0]
    if isinstance(inputs, Tensor):
        return isinstance(value, tuple)
    parts = inputs.values() if isinstance(inputs, Mapping) else inputs
    nested = isinstance(inputs, (Mapping, tuple))
    return nested and bool(parts) and all(isinstance(part, Tensor) for part in parts)


def unpack(item: Any) -> Batch:
    """Tell the inputs of a batch from its labels.

    Args:
        item: A tensor of inputs; ``(inputs,)``; ``(inputs, labels)``; ``(input, ..., labels)``
            with several positional inputs; or a mapping of keyword arguments, whose ``labels`` or
            ``label`` entry is taken out.

    Raises:
        DataError: It is none of these.
    """
    if isinstance(item, Tensor):
        return item, None
    if isinstance(item, Mapping):
        labels = next((item[key] for key in LABELS if key in item), None)
        return {key: value for key, value in item.items() if key not in LABELS}, labels
    if isinstance(item, (list, tuple)) and item:
        *inputs, labels = item
        if not inputs:
            return labels, None
        if labels is None or isinstance(labels, Tensor):
            return inputs[0] if len(inputs) == 1 else tuple(inputs), labels
    raise DataError(
        "a batch must be inputs, an (inputs, labels) tuple, or a mapping of keyword arguments, "
        f"labels a tensor; got {type(item).__name__}"
        + (f" of {len(item)}" if isinstance(item, (tuple, list)) else "")
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
    output = call_safely(model, inputs)
    if isinstance(output, Tensor):
        return output
    named = isinstance(output, Mapping)
    logits = output.get("logits") if named else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    parts = output.values() if named else output
    if isinstance(parts, Iterable):
        for part in parts:
            if isinstance(part, Tensor):
                return part
    raise DataError(f"the network's output, a {type(output).__name__}, holds no tensor to score")
