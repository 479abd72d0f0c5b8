"""How the attributes of a module class follow its tensors: the table of followers."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

Follower = Callable[[nn.Module, nn.Module, "str | None"], None]
_BY_CLASS: dict[type[nn.Module], Follower] = {}
_BY_NAME: dict[str, Follower] = {}


def follows(*kinds: type[nn.Module] | str) -> Callable[[Follower], Follower]:
    """Register how the attributes of module classes follow their tensors.

    A class of an optional package is given by its dotted name. A follower is
    ``fn(dense, small, grouped)``: it reads sizes from ``small``'s tensors (or its children's) and
    sets ``small``'s attributes; ``grouped`` says how a grouped convolution or group norm was cut.
    """

    def decorate(fn: Follower) -> Follower:
        for kind in kinds:
            if isinstance(kind, str):
                _BY_NAME[kind] = fn
            else:
                _BY_CLASS[kind] = fn
        return fn

    return decorate


def follower_of(module: nn.Module) -> Follower | None:
    """The follower of the closest registered class of a module."""
    for kind in type(module).__mro__:
        found = _BY_CLASS.get(kind) or _BY_NAME.get(f"{kind.__module__}.{kind.__qualname__}")
        if found is not None:
            return found
    return None
