"""Things found by name: what rlprune brings, what an installed package offers, a dotted path."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from rlprune.errors import ConfigError
from rlprune.locate import locate

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Named objects of one kind.

    As a mapping it holds what was registered. :meth:`find` also looks at the entry points that
    installed packages declare under ``group``, and takes a dotted path.

    Args:
        kind: What one of them is, for messages: ``"agent"``.
        group: The entry point group, e.g. ``"rlprune.agents"``.

    Example:
        >>> shapes: Registry[type] = Registry("shape", "my_package.shapes")
        >>> @shapes.register("square")
        ... class Square: ...
        >>> shapes.find("square") is Square
        True
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind, self.group = kind, group
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Returns a decorator that registers what it decorates under ``name``.

        Raises:
            ConfigError: The name is taken by something else.
        """

        def add(entry: T) -> T:
            if self._entries.get(name, entry) is not entry:
                raise ConfigError(f"{self.kind} {name!r} is registered already")
            self._entries[name] = entry
            return entry

        return add

    def find(self, name: str) -> T:
        """What a registered name, an entry point's name, or a dotted path stands for.

        Raises:
            ConfigError: Nothing is found, or importing it failed; names the nearest known name.
        """
        if name in self._entries:
            return self._entries[name]
        for point in entry_points(group=self.group):
            if point.name == name:
                try:
                    found: T = point.load()
                except Exception as error:
                    raise ConfigError(
                        f"{self.kind} {name!r}: loading {point.value} of an installed package "
                        f"failed: {type(error).__name__}: {error}"
                    ) from error
                return found
        if "." in name or ":" in name:
            located: T = locate(name.replace(":", "."))
            return located
        known = self.names()
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"{self.kind} {name!r} is unknown; {hint}known are {', '.join(known)}, or give the "
            "dotted path of your own"
        )

    def names(self) -> list[str]:
        """Registered names, then those of entry points."""
        others = sorted({point.name for point in entry_points(group=self.group)} - {*self})
        return [*self._entries, *others]

    def __getitem__(self, name: str) -> T:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
