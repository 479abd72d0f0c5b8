"""Where a run's networks are."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from rlprune.errors import ConfigError
from rlprune.inputs import to_device
from rlprune.structure.unwrap import unwrapped


def device_of(model: nn.Module) -> torch.device:
    """Device of the first parameter or buffer; the CPU when there is none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def resolve_device(device: str | torch.device | None, model: nn.Module) -> torch.device:
    """The device of a run: ``auto`` takes a GPU if there is one, None stays where the model is.

    Raises:
        ConfigError: The device is malformed or not there.
    """
    if device is None:
        return device_of(model)
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(device, bool) or not isinstance(device, (str, int, torch.device)):
        raise ConfigError(f"device={device!r}: give a name, as auto, cpu, cuda or cuda:1")
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {str(device)!r} cannot be used here: {error}") from error
    return found


def place(
    model: nn.Module, example_inputs: Any, device: str | torch.device | None
) -> tuple[nn.Module, Any]:
    """A copy of the network in eval mode, and the example inputs, on the run's device.

    Wrappers (``DataParallel``, ``torch.compile``, PEFT adapters) are taken off.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise ConfigError("the network is on the meta device and has no weights; load them first")
    model = unwrapped(model)
    target = resolve_device(device, model)
    return copy.deepcopy(model).eval().to(target), to_device(example_inputs, target)


def use_threads(count: Any) -> None:
    """Set PyTorch's CPU threads; None keeps its own choice.

    Raises:
        ConfigError: The number is none, or below 1.
    """
    if count is None:
        return
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigError(f"threads={count!r}: give a whole number from 1, or null")
    torch.set_num_threads(count)
