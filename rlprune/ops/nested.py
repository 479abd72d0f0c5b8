"""Values inside the nested lists, tuples and dictionaries that operations take and give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def leaves(value: Any) -> list[Any]:
    """All values, in order: ``tree_leaves`` of PyTorch for what an op is called with, but fast."""
    found: list[Any] = []
    _gather(value, found)
    return found


def _gather(value: Any, found: list[Any]) -> None:
    if isinstance(value, (list, tuple)):
        for item in value:
            _gather(item, found)
    elif isinstance(value, dict):
        for item in value.values():
            _gather(item, found)
    else:
        found.append(value)


def mapped(fn: Callable[[Any], Any], value: Any) -> Any:
    """The same nest with every value replaced; lists and tuples of any kind become plain ones."""
    if isinstance(value, (list, tuple)):
        return (list if isinstance(value, list) else tuple)(mapped(fn, item) for item in value)
    if isinstance(value, dict):
        return {key: mapped(fn, item) for key, item in value.items()}
    return fn(value)
