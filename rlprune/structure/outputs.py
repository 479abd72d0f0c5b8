"""The tensors in whatever a forward pass returns."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from itertools import islice
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_ATOMS = (
    *(str, bytes, int, type, type(None), ModuleType),
    *(nn.Module, torch.dtype, torch.device, torch.Size),
)
MOST = 100_000
"""Items taken from an iterator, which may have no end."""


def tensors_of(output: Any) -> list[Tensor]:
    """All tensors in a model's output, in an order that two alike networks share.

    They are looked for in nested collections and mappings, in what iterators give, in the
    attributes of any object (dataclasses with and without slots, distributions, detections, tensors
    and lists with attributes of their own), in what functions close over, and in NumPy arrays,
    which come out as tensors; so do floating-point numbers. A Hugging Face key-value cache is state
    for the next call, not an output.
    """
    return list(_walk(output, set()))


def _walk(value: Any, seen: set[int]) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
        if id(value) not in seen:
            seen.add(id(value))
            for part in vars(value).values():
                yield from _walk(part, seen)
    elif isinstance(value, (np.ndarray, np.generic, memoryview, array, float, complex)):
        yield from _numbers(np.array(value), seen)
    elif not isinstance(value, _ATOMS) and not _is_cache(value) and id(value) not in seen:
        seen.add(id(value))
        for part in _parts(value):
            yield from _walk(part, seen)


def _numbers(values: np.ndarray, seen: set[int]) -> Iterator[Tensor]:
    """A NumPy array as tensors: of numbers, of records, of objects."""
    if values.dtype.kind in "biufc":
        yield torch.from_numpy(values)
    elif values.dtype.names:
        for name in values.dtype.names:
            yield from _numbers(np.array(values[name]), seen)
    elif values.dtype == object:
        for part in values.flat:
            yield from _walk(part, seen)


def _parts(value: Any) -> Iterable[Any]:
    """What a container, function or object holds."""
    items = list(_items(value))
    held = {id(item) for item in items}
    return [*items, *(x for x in _attributes(value) if id(x) not in held)]


def _items(value: Any) -> Iterable[Any]:
    """What a container or function holds, but for its attributes."""
    if isinstance(value, Mapping):
        return [*(k for k in value if not isinstance(k, _ATOMS)), *value.values()]
    if isinstance(value, Set):
        return sorted(value, key=_content)
    if isinstance(value, Collection):
        return list(value)
    if isinstance(value, Iterator):
        return islice(value, MOST)
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, FunctionType):
        cells = [c.cell_contents for c in value.__closure__ or () if _filled(c)]
        return [*(value.__defaults__ or ()), *cells]
    if isinstance(value, (MethodType, BuiltinFunctionType)):
        return [value.__self__]
    return []


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 (raises where nothing is in it yet)
    except ValueError:
        return False
    return True


def _attributes(value: Any) -> list[Any]:
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
