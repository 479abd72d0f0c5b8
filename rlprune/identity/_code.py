"""What the compiled code of functions and classes tells: what it does, refers to and changes."""

from __future__ import annotations

import builtins
import functools
import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from rlprune.identity._stack import changed_in

PYTHON = "{}.{}".format(*sys.version_info)
"""Compiled code is told apart within one minor version of Python only."""

_OURS = ("rlprune", "rlprune_envs")
_STARTS = ("__init__", "__post_init__", "__new__", "__setstate__")


def qualified_name(value: Any) -> str:
    """Module and name of a function or class; the bare name for rlprune's own."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if name is None:
        return qualified_name(type(value))
    return str(name) if module is None or is_ours(module) else f"{module}.{name}"


def speaks(value: Any) -> bool:
    """Whether an object's class has a method ``identity()``."""
    return callable(getattr(type(value), "identity", None))


def is_ours(module: str | None) -> bool:
    """Whether a module belongs to rlprune, whose stored formats carry versions of their own."""
    return package_of(module) in _OURS


def package_of(module: str | None) -> str:
    """The top-level package of a module's name."""
    return (module or "").partition(".")[0]


def is_standard(package: str) -> bool:
    """Whether a package comes with Python."""
    return package in sys.stdlib_module_names


@functools.cache
def is_library(package: str) -> bool:
    """Whether a package was installed or comes with Python: no part of the user's own code."""
    if package == "__main__":
        return False
    if is_standard(package):
        return True
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    roots = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")}
    return any(file.startswith(root + "/") for root in roots)


def digest_of_code(code: CodeType) -> str:
    """Digest of what a function computes; comments, line numbers and its file do not count."""
    return hashlib.sha256(repr(_told(code)).encode()).hexdigest()[:16]


def _told(code: CodeType) -> tuple[Any, ...]:
    arguments = code.co_argcount + code.co_kwonlyargcount
    consts = [_told(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts]
    return (
        code.co_code.hex(),
        consts,
        code.co_names,
        code.co_varnames[:arguments],
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags),
        getattr(code, "co_exceptiontable", b"").hex(),
    )


def _constant(value: Any) -> str:
    if isinstance(value, frozenset):
        return f"frozenset{sorted(map(repr, value))}"
    return repr(value)


def codes(code: CodeType) -> Iterator[CodeType]:
    """A code object and those nested in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def names_of(code: CodeType) -> set[str]:
    """Names of globals and attributes that code refers to."""
    return {name for part in codes(code) for name in part.co_names}


def globals_of(function: FunctionType) -> dict[str, Any]:
    """The globals that a function refers to, and those it reaches through a module's name."""
    space = function.__globals__
    names = names_of(function.__code__)
    found = {name: space[name] for name in sorted(names) if name in space}
    package = package_of(space.get("__name__"))
    for name, value in list(found.items()):
        if isinstance(value, type(sys)) and package_of(value.__name__) == package:
            inside = vars(value)
            found |= {f"{name}.{n}": inside[n] for n in sorted(names) if n in inside}
    return {name: value for name, value in found.items() if value is not vars(builtins).get(name)}


@functools.lru_cache(maxsize=4096)
def changed_names(code: CodeType) -> frozenset[str]:
    """Variables from outside, and attributes, that code itself is seen to change.

    A counter or a cache is no ingredient of what a function returns; left in, every call would
    give the function another identity.
    """
    inner = (changed_names(part) for part in code.co_consts if isinstance(part, CodeType))
    return frozenset(changed_in(code)).union(
        *(names.difference(code.co_cellvars) for names in inner)
    )


def methods_of(kind: type) -> dict[str, FunctionType]:
    """The functions that a class and its bases define, properties included; nearest first."""
    found: dict[str, FunctionType] = {}
    for base in kind.__mro__:
        for name, value in vars(base).items():
            inner = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
            inner = getattr(inner, "__wrapped__", inner)
            if isinstance(inner, FunctionType):
                found.setdefault(name, inner)
    return found


_ATTRIBUTES: WeakKeyDictionary[type, frozenset[str]] = WeakKeyDictionary()


def changed_attributes(kind: type) -> frozenset[str]:
    """Attributes that methods of a class change after construction: state, not options."""
    known = _ATTRIBUTES.get(kind)
    if known is not None:
        return known
    methods = methods_of(kind)
    starting = {name for name in _STARTS if name in methods}
    queue = list(starting)
    while queue:
        called = names_of(methods[queue.pop()].__code__) & methods.keys()
        queue += called - starting
        starting |= called
    later = (method for name, method in methods.items() if name not in starting)
    found = frozenset(name for method in later for name in changed_names(method.__code__))
    _ATTRIBUTES[kind] = found
    return found
