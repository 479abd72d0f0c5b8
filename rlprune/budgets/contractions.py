"""Multiply-accumulates of the ATen operators that contract two tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Counter = Callable[[tuple[Any, ...], Any], int]
"""``(operator arguments, operator result) -> multiply-accumulates``."""

aten = torch.ops.aten


def _convolution(args: tuple[Any, ...], result: Any) -> int:
    inputs, weight, transposed = args[0], args[1], args[6]
    positions = (inputs if transposed else result).shape[2:]
    return int(inputs.shape[0]) * math.prod(positions) * weight.numel()


def _last_two(first: int) -> Counter:
    """A product of two (batches of) matrices that stand at ``args[first]`` and the next."""

    def count(args: tuple[Any, ...], result: Any) -> int:
        left, right = args[first], args[first + 1]
        return int(left.numel()) * int(right.shape[-1])

    return count


def _left_size(first: int) -> Counter:
    """A product with a vector: every entry of the left operand is used once."""

    def count(args: tuple[Any, ...], result: Any) -> int:
        return int(args[first].numel())

    return count


def _attention(args: tuple[Any, ...], result: Any) -> int:
    query, key, value = args[0], args[1], args[2]
    scores = math.prod(query.shape[:-1]) * int(key.shape[-2])
    return scores * (int(query.shape[-1]) + int(value.shape[-1]))


def _recurrent(args: tuple[Any, ...], result: Any) -> int:
    inputs, weight_ih, weight_hh = args[0], args[1], args[2]
    return math.prod(inputs.shape[:-1]) * (weight_ih.numel() + weight_hh.numel())


def _table() -> dict[Any, Counter]:
    counters: dict[str, Counter] = {
        "convolution": _convolution,
        "convolution_overrideable": _convolution,
        "mm": _last_two(0),
        "bmm": _last_two(0),
        "addmm": _last_two(1),
        "_addmm_activation": _last_two(1),
        "addbmm": _last_two(1),
        "baddbmm": _last_two(1),
        "mv": _left_size(0),
        "addmv": _left_size(1),
        "dot": _left_size(0),
        "vdot": _left_size(0),
        "_scaled_dot_product_flash_attention": _attention,
        "_scaled_dot_product_flash_attention_for_cpu": _attention,
        "_scaled_dot_product_efficient_attention": _attention,
        "_scaled_dot_product_cudnn_attention": _attention,
        "_scaled_dot_product_fused_attention_overrideable": _attention,
        "mkldnn_rnn_layer": _recurrent,
    }
    return {getattr(aten, name): count for name, count in counters.items() if hasattr(aten, name)}


CONTRACTIONS: dict[Any, Counter] = _table()
"""Operator packet -> counter. Element-wise work, normalisation and pooling count as nothing."""


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


def zeros_like_result(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operator would return, with zeros in place of the arithmetic.

    Args:
        func: An operator overload whose shapes do not depend on values.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Returns:
        Zeros of the result's shape, strides, type and device.
    """
    device = next(item.device for item in args if isinstance(item, Tensor))
    with torch.no_grad():
        shaped = func(*_as_meta(args), **{key: _as_meta(item) for key, item in kwargs.items()})
    return _as_zeros(shaped, device)
