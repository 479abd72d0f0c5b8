"""Functions, methods and classes as ingredients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

from rlprune.identity import _code
from rlprune.identity._json import digest_of_json

Describe = Callable[[Any], Any]

_MOST = 200
"""Functions followed from one function, nearest first."""


def describe_callable(value: Any, describe: Describe) -> dict[str, Any] | None:
    """A function, method, partial or class; None for anything else, callable or not."""
    if isinstance(value, functools.partial):
        parts: dict[str, Any] = {
            "function": value.func, "arguments": value.args, "keywords": value.keywords,
        }  # fmt: skip
        return {"@": "partial", **{key: describe(part) for key, part in parts.items()}}
    if isinstance(value, MethodType):
        bound = {"function": describe(value.__func__), "self": describe(value.__self__)}
        return {"@": "method", **bound}
    if isinstance(value, FunctionType):
        return _function(value, describe)
    if isinstance(value, type):
        return _class(value, describe)
    if isinstance(value, BuiltinFunctionType):
        owner = value.__self__
        free = owner is None or isinstance(owner, (ModuleType, type))
        told = {"@": "builtin", "name": _code.qualified_name(value)}
        return told if free else {**told, "self": describe(owner)}
    if callable(value) and hasattr(value, "__wrapped__"):
        return {"@": "wrapped", "function": describe(value.__wrapped__)}
    return None


def _function(value: FunctionType, describe: Describe) -> dict[str, Any]:
    found = {"@": "function", "name": _code.qualified_name(value), **_own(value, describe)}
    if _is_users(value.__globals__.get("__name__")):
        found["calls"] = _calls(value, describe)
    return {key: part for key, part in found.items() if part not in ({}, [], None)}


def _calls(value: FunctionType | type, describe: Describe) -> dict[str, Any]:
    """A digest of every function and class of the same package that one refers to."""
    calls: dict[str, list[str]] = {}
    for other in _reached(value):
        name = _code.qualified_name(other)
        calls.setdefault(name, []).append(_digest(_shallow(other, describe)))
    return {name: sorted(told) for name, told in sorted(calls.items())}


def _own(value: FunctionType, describe: Describe) -> dict[str, Any]:
    """What a function is made of, without the functions it calls."""
    code, module = value.__code__, value.__globals__.get("__name__")
    changed = _code.changed_names(code)
    cells = zip(code.co_freevars, value.__closure__ or (), strict=True)
    found: dict[str, Any] = {
        "defaults": describe(list(value.__defaults__ or ())),
        "keywords": describe(dict(value.__kwdefaults__ or {})),
        "closure": {
            name: describe(content)
            for name, cell in cells
            if name not in changed
            for content in _content(cell)
        },
    }
    if _code.is_ours(module):
        return found
    found.update(code=_code.digest_of_code(code), python=_code.PYTHON)
    if _is_users(module):
        found["globals"] = {
            name: describe(item)
            for name, item in _code.globals_of(value).items()
            if name not in changed and _is_value(item)
        }
    return found


def _content(cell: Any) -> Iterator[Any]:
    """What a cell of a closure holds; nothing while it is empty."""
    try:
        yield cell.cell_contents
    except ValueError:
        return


def _is_value(item: Any) -> bool:
    """Whether a global counts by its value: plain ones, containers, tensors, networks."""
    if item is None or isinstance(item, (bool, int, float, complex, str, bytes)):
        return True
    if isinstance(item, (list, tuple, dict, set, frozenset, functools.partial)):
        return True
    if isinstance(item, (type, FunctionType, ModuleType)):
        return False
    return _code.speaks(item) or isinstance(item, (Tensor, nn.Module, np.ndarray))


def _class(kind: type, describe: Describe) -> dict[str, Any]:
    found: dict[str, Any] = {"@": "class", "name": _code.qualified_name(kind)}
    bases = [base for base in kind.__mro__ if _is_users(base.__module__)]
    if bases:
        found.update(code=_digest([_shallow(base, describe) for base in bases]))
        found.update(python=_code.PYTHON, calls=_calls(kind, describe))
    return {key: part for key, part in found.items() if part != {}}


def _is_users(module: str | None) -> bool:
    return not (_code.is_ours(module) or _code.is_library(_code.package_of(module)))


def _shallow(value: FunctionType | type, describe: Describe) -> Any:
    """A function or class by itself: what it is made of, not what it calls."""
    if isinstance(value, FunctionType):
        return [_code.qualified_name(value), _own(value, describe)]
    plain = {
        name: item
        for name, item in vars(value).items()
        if isinstance(item, (bool, int, float, str, tuple)) and not name.startswith("__")
    }
    own = {name: m for name, m in _code.methods_of(value).items() if name in vars(value)}
    methods = {name: _code.digest_of_code(method.__code__) for name, method in own.items()}
    return [_code.qualified_name(value), describe(plain), methods]


def _reached(start: FunctionType | type) -> list[FunctionType | type]:
    """Functions and classes of the same package that a function refers to, however far away."""
    package = _code.package_of(start.__module__)
    seen: dict[int, FunctionType | type] = {id(start): start}
    queue: list[FunctionType | type] = [start]
    while queue and len(seen) <= _MOST:
        for item in _referred(queue.pop(0)):
            item = getattr(item, "__wrapped__", item)
            if not isinstance(item, (FunctionType, type)) or id(item) in seen:
                continue
            if _code.package_of(item.__module__) == package:
                seen[id(item)] = item
                queue.append(item)
    return [item for item in seen.values() if item is not start]


def _referred(item: FunctionType | type) -> Iterator[Any]:
    functions = [item] if isinstance(item, FunctionType) else _code.methods_of(item).values()
    for function in functions:
        yield from _code.globals_of(function).values()


def _digest(value: Any) -> str:
    return digest_of_json(value)[:16]
