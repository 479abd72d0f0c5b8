"""Example inputs: one tensor, a sequence of positional or a mapping of keyword arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from rlprune.errors import ConfigError

ExampleInputs = Tensor | Sequence[Any] | Mapping[str, Any]
"""What a network is called with: ``model(x)``, ``model(*args)`` or ``model(**kwargs)``."""


def call(model: nn.Module | Callable[..., Any], example_inputs: ExampleInputs) -> Any:
    """Run ``model`` on ``example_inputs``.

    Args:
        model: The network (or any callable with the same signature).
        example_inputs: A tensor, a sequence of positional or a mapping of keyword arguments.

    Returns:
        Whatever the model returns.

    Raises:
        ConfigError: ``example_inputs`` is none of the three accepted forms.
    """
    if isinstance(example_inputs, Tensor):
        return model(example_inputs)
    if isinstance(example_inputs, Mapping):
        return model(**example_inputs)
    if isinstance(example_inputs, (list, tuple)):
        return model(*example_inputs)
    raise _unsupported(example_inputs)


_WRITES: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Whether a network writes into what it is called with, as one does that begins in place."""


def call_safely(model: nn.Module, inputs: ExampleInputs) -> Any:
    """:func:`call` on inputs that stay what they are, whatever the network does with its own.

    A network is given a copy in its first call, and always if it wrote into that: samples that one
    candidate has overwritten would be other samples for the next one.
    """
    writes = _WRITES.get(model)
    if writes is False:
        return call(model, inputs)
    given = cloned(inputs)
    tensors = [tensor for tensor in tensors_in(given) if not tensor.is_inference()]
    before = [tensor._version for tensor in tensors]
    result = call(model, given)
    _WRITES[model] = bool(writes) or before != [tensor._version for tensor in tensors]
    return result


def cloned(value: Any) -> Any:
    """The same nest with a copy of every tensor."""
    return map_tensors(value, lambda tensor: tensor.clone())


def map_tensors(value: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    """Apply ``fn`` to every tensor in nested lists, tuples and mappings; keep everything else.

    Args:
        value: A tensor or a nest of sequences and mappings that holds tensors.
        fn: What to do to each tensor.

    Returns:
        The same nest with the tensors replaced.
    """
    if isinstance(value, Tensor):
        return fn(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(item, fn) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(item, fn) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(map_tensors(item, fn) for item in value)
    return value


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in nested lists, tuples and mappings, in order."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(value, note)
    return found


def to_device(
    example_inputs: ExampleInputs, device: torch.device | str, dtype: torch.dtype | None = None
) -> Any:
    """Move every tensor to ``device``; cast the floating-point ones to ``dtype``.

    Args:
        example_inputs: Inputs in any accepted form.
        device: Target device.
        dtype: Floating-point type to cast to; None keeps each tensor's own.

    Returns:
        Inputs of the same form; integer and boolean tensors keep their type.
    """

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype=dtype if tensor.is_floating_point() else None)

    return map_tensors(example_inputs, move)


def batch_of(example_inputs: ExampleInputs, n: int) -> Any:
    """Repeat or truncate the inputs to ``n`` samples along dimension 0.

    Only tensors whose first dimension equals the batch size of the first tensor are changed:
    scalars and per-call tables stay as they are.

    Args:
        example_inputs: Inputs in any accepted form, at least one sample.
        n: Number of samples wanted, at least 1.

    Returns:
        Inputs of the same form with ``n`` samples.

    Raises:
        ConfigError: ``n`` is below 1, or the inputs hold no sample.
    """
    if n < 1:
        raise ConfigError(f"batch_of: n must be at least 1, got {n}")
    size = batch_size(example_inputs)

    def resize(tensor: Tensor) -> Tensor:
        if tensor.dim() == 0 or tensor.shape[0] != size:
            return tensor
        repeats = -(-n // size)
        return tensor.repeat(repeats, *([1] * (tensor.dim() - 1)))[:n]

    return map_tensors(example_inputs, resize)


def batch_size(example_inputs: ExampleInputs) -> int:
    """Number of samples in the inputs: the first dimension of the first tensor that has one.

    Args:
        example_inputs: Inputs in any accepted form.

    Returns:
        The batch size, at least 1.

    Raises:
        ConfigError: No tensor has a first dimension, or it is empty.
    """
    found = [tensor.shape[0] for tensor in tensors_in(example_inputs) if tensor.dim() > 0]
    if not found:
        raise _unsupported(example_inputs)
    if found[0] < 1:
        raise ConfigError("example_inputs hold an empty batch; give at least one sample")
    return found[0]


def sequences_of(example_inputs: ExampleInputs) -> Tensor:
    """The sequences in the inputs: ``input_ids``, or the first tensor of two dimensions or more.

    Returns:
        A tensor [batch, length, ...].

    Raises:
        ConfigError: There is none.
    """
    named = example_inputs.get("input_ids") if isinstance(example_inputs, Mapping) else None
    found: list[Tensor] = [named] if isinstance(named, Tensor) else []

    def note(tensor: Tensor) -> Tensor:
        if tensor.dim() >= 2:
            found.append(tensor)
        return tensor

    map_tensors(example_inputs, note)
    if not found or found[0].shape[1] < 1:
        raise ConfigError("example_inputs hold no sequence, a tensor [batch, length, ...]")
    return found[0]


def at_length(example_inputs: ExampleInputs, n: int) -> Any:
    """Repeat or truncate the sequences in the inputs to ``n`` positions along dimension 1.

    Only tensors as long as `sequences_of` are changed.

    Args:
        example_inputs: Inputs in any accepted form, with at least one sequence.
        n: Number of positions wanted, at least 1.

    Returns:
        Inputs of the same form.

    Raises:
        ConfigError: ``n`` is below 1, or the inputs hold no sequence.
    """
    if n < 1:
        raise ConfigError(f"at_length: n must be at least 1, got {n}")
    length = sequences_of(example_inputs).shape[1]

    def resize(tensor: Tensor) -> Tensor:
        if tensor.dim() < 2 or tensor.shape[1] != length:
            return tensor
        repeats = [1, -(-n // length), *[1] * (tensor.dim() - 2)]
        return tensor.repeat(repeats)[:, :n]

    return map_tensors(example_inputs, resize)


def _unsupported(example_inputs: object) -> ConfigError:
    return ConfigError(
        "example_inputs must be a tensor with a batch dimension, a list or tuple of positional "
        f"arguments, or a dict of keyword arguments; got {type(example_inputs).__name__}"
    )
