"""Number formats and memory layout that make a network run faster on its device."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.inputs import map_tensors

_FAST_FLAGS = ("avx512_bf16", "amx_bf16")


def default_device(device: torch.device | str | None = None) -> torch.device:
    """The device given; for None or ``"auto"`` the first GPU, else the processor."""
    if device not in (None, "auto"):
        return torch.device(device)
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def use_bfloat16(setting: bool | str, device: torch.device) -> bool:
    """Resolve a setting of the number format.

    Args:
        setting: True or ``"bfloat16"``, False or ``"float32"``, or ``"auto"``: bfloat16 where the
            device multiplies it natively.
        device: Where the network runs.

    Returns:
        Whether to run under bfloat16 autocast.
    """
    if setting != "auto":
        return setting in (True, "bfloat16")
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and _processor_has_bfloat16()


def autocast(device: torch.device, enabled: bool) -> AbstractContextManager[object]:
    """bfloat16 autocast on ``device``, or nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def to_channels_last(value: Tensor) -> Tensor:
    """Lay out image batches ``[N, C, H, W]`` channels last; leave everything else alone."""
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


def laid_out(inputs: Any) -> Any:
    """Inputs with every image batch channels last."""
    return map_tensors(inputs, to_channels_last)


def is_convolutional(model: nn.Module) -> bool:
    """Whether the network has 2-D convolutions."""
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


@lru_cache(maxsize=1)
def _processor_has_bfloat16() -> bool:
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        found = capabilities()
        return any(bool(found.get(flag)) for flag in _FAST_FLAGS)
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return any(flag in flags for flag in _FAST_FLAGS)
