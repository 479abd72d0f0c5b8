"""What compensation methods have in common: their interface, their names, what they work on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import nn

from rlprune.plugins import Registry

if TYPE_CHECKING:
    from rlprune.batches import Batch
    from rlprune.plan import Plan
    from rlprune.structure import Groups


@dataclass(frozen=True)
class Context:
    """What a compensation method works on.

    Attributes:
        groups: The dense network's groups; ``groups.model`` is the dense network, to read only.
        plan: Which units are kept.
        module: The compacted network; methods change it in place.
        batches: Calibration batches; empty when there is no calibration data.
    """

    groups: Groups
    plan: Plan
    module: nn.Module
    batches: Sequence[Batch] = ()

    @property
    def dense(self) -> nn.Module:
        """The dense network."""
        return self.groups.model


@runtime_checkable
class Method(Protocol):
    """One way to compensate."""

    def apply(self, context: Context) -> None:
        """Change ``context.module`` in place."""


METHODS: Registry[Callable[[], Method]] = Registry("compensation", "rlprune.compensation")
"""Methods by name: those of rlprune, and those that installed packages declare as entry points."""
