"""A value that is computed when it is first asked for, and can be pickled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """Calls a function without arguments once, and remembers what it returned."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._known: list[T] = []

    def __call__(self) -> T:
        """The function's value."""
        if not self._known:
            self._known.append(self._function())
        return self._known[0]
