"""Sites: places in a network at which something can be seen."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from rlprune.errors import ConfigError
from rlprune.observe.watch import nearest

WHERE = ("input", "output")
_TEXT = re.compile(
    r"(?P<path>[^@]*)@(?P<where>input|output)"
    r"(\[(?P<argument>\w+)\])?(#(?P<call>\d+))?"
)


@dataclass(frozen=True)
class Site:
    """A place at which a running network can be looked at.

    Written ``path@where[argument]#call``, the last two only where they are not the default:
    ``encoder.layer.3@output``, ``decoder@input[hidden_states]``, ``fc@input#1``.

    Attributes:
        path: A module's path ("" is the network); ``path:function`` for calls of a function, such
            as ``encoder.attention:softmax``, while that module runs; or a parameter's name for
            calls of linear functions (``F.linear``, ``F.conv2d``, ``@``, ...) that read it, by
            modules or not, whole or a view of it.
        where: ``input`` or ``output``.
        call: Which call of it in one pass of the network, from 0; None for every one.
        argument: Which argument, by place or name, or which part of an output that is a tuple or
            mapping. The parameter at a parameter's site is not counted.

    Raises:
        ConfigError: ``where`` is something else.
    """

    path: str
    where: str = "output"
    call: int | None = None
    argument: int | str = 0

    def __post_init__(self) -> None:
        if self.where not in WHERE:
            raise ConfigError(f"site {self.path!r}: {self.where!r} is neither input nor output")

    def __str__(self) -> str:
        argument = f"[{self.argument}]" if self.argument != 0 else ""
        call = "" if self.call is None else f"#{self.call}"
        return f"{self.path}@{self.where}{argument}{call}"

    @staticmethod
    def parse(text: str, network: nn.Module | None = None) -> Site:
        """Read a site from text.

        Args:
            text: ``path@where[argument]#call``; ``path.output`` and ``path.input`` for short, where
                no module has that whole path; or a path alone for its output.
            network: Decides whether a path that ends in ``.output`` is a module of that name.

        Returns:
            The site; its path may be a pattern (see `expand`).
        """
        match = _TEXT.fullmatch(text)
        if match is not None:
            argument, call = match["argument"] or "0", match["call"]
            return Site(
                match["path"],
                match["where"],
                None if call is None else int(call),
                int(argument) if argument.isdigit() else argument,
            )
        if "@" in text:
            raise ConfigError(f"site {text!r} is not of the form path@input[argument]#call")
        path, _, where = text.rpartition(".")
        if where in WHERE and (network is None or not _matches(text, _modules(network))):
            return Site(path, where)
        return Site(text)


def expand(network: nn.Module, pattern: str | Site) -> list[Site]:
    """The sites that a pattern stands for.

    Args:
        network: The network.
        pattern: A site or its text. Its path may hold ``*``, ``?`` and ``[...]``, which match
            module paths, or parameter names if no module matches; ``*`` crosses dots.

    Returns:
        Sites with plain paths, in order of registration.

    Raises:
        ConfigError: Nothing matches; names the nearest.
    """
    site = Site.parse(pattern, network) if isinstance(pattern, str) else pattern
    path, colon, function = site.path.partition(":")
    if _is_module(network, path):
        return [site]
    modules = _modules(network)
    found = _matches(path, modules)
    if not found and not colon:
        modules |= dict(network.named_parameters(remove_duplicate=False))
        found = _matches(path, modules)
    if not found:
        raise ConfigError(f"no module or parameter is named {path!r}; {nearest(path, modules)}")
    return [replace(site, path=f"{name}{colon}{function}") for name in found]


def expand_all(network: nn.Module, sinks: Mapping[Any, Any] | None) -> Iterator[tuple[Site, Any]]:
    """Sites by pattern, each with what belongs to the pattern."""
    for pattern, sink in (sinks or {}).items():
        for site in expand(network, pattern):
            yield site, sink


def _is_module(network: nn.Module, path: str) -> bool:
    try:
        network.get_submodule(path)
    except AttributeError:
        return False
    return True


def _modules(network: nn.Module) -> dict[str, Any]:
    return dict(network.named_modules(remove_duplicate=False))


def _matches(path: str, names: Mapping[str, Any]) -> list[str]:
    if path in names:
        return [path]
    return [name for name in names if fnmatchcase(name, path)] if set(path) & set("*?[") else []
