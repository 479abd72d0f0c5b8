"""The tensors in whatever a forward pass returns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_ATOMS = (
    *(str, bytes, int, type, type(None), nn.Module, torch.dtype, torch.device, torch.Size),
    *(FunctionType, MethodType, BuiltinFunctionType),
)


def tensors_of(output: Any) -> list[Tensor]:
    """All tensors in a model's output, in an order that two alike networks share.

    They are looked for in nested sequences, mappings and sets, in the attributes of any other
    object (dataclasses with and without slots, distributions, detections) and in NumPy arrays,
    which come out as tensors; so do floating-point numbers. A Hugging Face key-value cache is state
    for the next call, not an output.
    """
    return list(_walk(output, set()))


def _walk(value: Any, seen: set[int]) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (np.ndarray, np.generic, float, complex)):
        array = np.array(value)
        if array.dtype.kind in "biufc":
            yield torch.from_numpy(array)
        elif array.dtype == object:
            for part in array.flat:
                yield from _walk(part, seen)
    elif not isinstance(value, _ATOMS) and not _is_cache(value) and id(value) not in seen:
        seen.add(id(value))
        for part in _parts(value):
            yield from _walk(part, seen)


def _parts(value: Any) -> Iterable[Any]:
    """What a container or object holds."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, Set):
        return sorted(value, key=_content)
    if isinstance(value, Sequence):
        return list(value)
    slots = [n for kind in type(value).__mro__ for n in _names(vars(kind).get("__slots__", ()))]
    held = [getattr(value, n) for n in slots if n != "__dict__" and hasattr(value, n)]
    return [*held, *vars(value).values()] if hasattr(value, "__dict__") else held


def _names(slots: Any) -> Sequence[str]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _content(item: Any) -> tuple[str, tuple[int, ...], float]:
    """An order for the members of a set, which has none of its own."""
    tensors = tensors_of(item)
    shape = tuple(n for t in tensors for n in t.shape)
    total = sum(float(t.detach().double().sum()) for t in tensors if t.device.type != "meta")
    return ("", shape, total) if tensors else (repr(item), (), 0.0)


def _is_cache(value: Any) -> bool:
    return any(
        kind.__module__ == "transformers.cache_utils" and kind.__name__ == "Cache"
        for kind in type(value).__mro__
    )
