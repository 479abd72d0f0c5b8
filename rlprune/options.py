"""Options as users write them, checked at once: names with the nearest valid one, and types."""

from __future__ import annotations

import collections.abc
import difflib
import numbers
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from rlprune.errors import ConfigError

T = TypeVar("T")

_KNOWN: dict[type, dict[str, Any]] = {}

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
}


def hint(name: str, known: Collection[str]) -> str:
    """What to write instead of an unknown name: the nearest known one, or all of them."""
    near = difflib.get_close_matches(str(name), [str(item) for item in known], n=1)
    return f"did you mean {near[0]!r}?" if near else f"choose of {', '.join(map(str, known))}"


def build(kind: type[T], options: Mapping[str, Any], where: str) -> T:
    """Make a dataclass of options from a mapping.

    Args:
        kind: The dataclass.
        options: Names and values; lists become tuples where a tuple is declared.
        where: What the options belong to, for messages: ``"finetune"``.

    Returns:
        The options.

    Raises:
        ConfigError: The mapping is none, a name is unknown or missing, or a value has another type
            than declared.
    """
    if not isinstance(options, Mapping):
        raise ConfigError(f"{where}: expected names and values, got {options!r}")
    declared = {field.name: field for field in fields(kind) if field.init}  # type: ignore[arg-type]
    unknown = [name for name in options if name not in declared]
    if unknown:
        raise ConfigError(f"{where} has no option {unknown[0]!r}; {hint(unknown[0], declared)}")
    missing = [
        name
        for name, field in declared.items()
        if name not in options and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: {missing[0]} has no value; give one")
    given = {
        name: tuple(value) if isinstance(value, list) and _is_tuple(kind, name) else value
        for name, value in options.items()
    }
    for name, value in given.items():
        _check(value, _types(kind)[name], f"{where}.{name}")
    return kind(**given)


def check_types(options: Any, where: str) -> None:
    """Check every field of a dataclass against its declared type.

    Raises:
        ConfigError: A value has another type; names the field, the value and what is expected.
    """
    for name, declared in _types(type(options)).items():
        _check(getattr(options, name), declared, f"{where}.{name}")


def _types(kind: type) -> dict[str, Any]:
    """Declared types of a dataclass by field."""
    if kind not in _KNOWN:
        found = typing.get_type_hints(kind)
        _KNOWN[kind] = {field.name: found[field.name] for field in fields(kind) if field.init}
    return _KNOWN[kind]


def _is_tuple(kind: type, name: str) -> bool:
    declared = _types(kind)[name]
    return any(typing.get_origin(item) is tuple for item in (declared, *typing.get_args(declared)))


def _check(value: Any, declared: Any, where: str) -> None:
    if not _fits(value, declared):
        raise ConfigError(f"{where}={value!r}: expected {_words(declared)}")


def _fits(value: Any, declared: Any) -> bool:
    origin, inner = typing.get_origin(declared), typing.get_args(declared)
    if declared is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, item) for item in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is tuple:
        whole = inner[1:] == (Ellipsis,)
        each = [inner[0]] * len(value) if whole and isinstance(value, tuple) else list(inner)
        return (
            isinstance(value, tuple)
            and len(value) == len(each)
            and all(_fits(item, kind) for item, kind in zip(value, each, strict=True))
        )
    if origin is collections.abc.Callable or declared is collections.abc.Callable:
        return callable(value)
    if origin in (dict, collections.abc.Mapping):
        return isinstance(value, Mapping) and all(
            _fits(key, inner[0]) and _fits(item, inner[1]) for key, item in value.items()
        )
    if declared in (int, float):
        number = numbers.Integral if declared is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, origin or declared)


def _words(declared: Any) -> str:
    origin, inner = typing.get_origin(declared), typing.get_args(declared)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(item) for item in inner)
    if origin is typing.Literal:
        return " or ".join(map(str, inner))
    if origin is tuple:
        return f"a list, each {_words(inner[0])}"
    if origin in (dict, collections.abc.Mapping):
        return f"names with {_words(inner[1])} each"
    return _WORDS.get(declared, getattr(declared, "__name__", str(declared)))
