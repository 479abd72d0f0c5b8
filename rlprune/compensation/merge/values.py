"""What is known of a tensor while a trace is walked."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlprune.compensation.merge.paths import State

NOTHING = State(0.0)
"""Zeros: a multiple of anything, at any degree."""


@dataclass(frozen=True)
class Weight:
    """A tensor made of parameters; ``pure`` where it is one of them, only rearranged."""

    names: tuple[str, ...]
    pure: bool = True


@dataclass
class Value:
    """What is known of one tensor of the trace; ``zero`` where it is zero everywhere."""

    states: dict[str, State] = field(default_factory=dict)
    weight: Weight | None = None
    carried: frozenset[str] = frozenset()
    zero: bool = False
