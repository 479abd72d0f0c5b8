"""Results of the right shape without the arithmetic: traces and counts skip products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def zeros_like_result(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an op would return, with zeros in place of the arithmetic.

    Args:
        func: an op overload whose shapes do not depend on values; one that has no kernel for
            ``meta`` tensors is computed after all.
        args: its positional arguments.
        kwargs: its keyword arguments.

    Returns:
        Zeros of the result's shape, strides, type and device.
    """
    device = next(x.device for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
    if device.type == "meta":
        return func(*args, **kwargs)
    try:
        with torch.no_grad():
            shaped = func(*_as_meta(args), **{key: _as_meta(x) for key, x in kwargs.items()})
    except RuntimeError:
        return func(*args, **kwargs)
    return _as_zeros(shaped, device)


def _as_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, (list, tuple)):
        return type(value)(_as_meta(item) for item in value)
    return torch.device("meta") if isinstance(value, torch.device) else value


def _as_zeros(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return torch.empty_strided(
            value.shape, value.stride(), dtype=value.dtype, device=device
        ).zero_()
    if isinstance(value, (list, tuple)):
        return type(value)(_as_zeros(item, device) for item in value)
    return value
