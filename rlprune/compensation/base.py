"""What compensation methods have in common: their interface, their names, what they work on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from rlprune.compaction.slicing import Slicer
from rlprune.errors import DataError
from rlprune.plugins import Registry

if TYPE_CHECKING:
    from rlprune.batches import Batch
    from rlprune.linear.weights import Consumer
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

    @cached_property
    def cuts(self) -> dict[str, dict[int, Tensor | None]]:
        """By cut weight and dimension the positions that are kept; None keeps all."""
        if self.groups not in _SLICERS:
            _SLICERS[self.groups] = Slicer(self.groups)
        return _SLICERS[self.groups].kept_by_tensor(self.plan)

    def kept(self, consumer: Consumer) -> tuple[Tensor | None, Tensor | None]:
        """Kept positions of a weight's inputs and of its outputs; None keeps all."""
        cut = self.cuts.get(consumer.name, {})
        return cut.get(consumer.dim), cut.get(1 - consumer.dim)

    def required(self, method: str) -> Sequence[Batch]:
        """The batches, for a method that cannot do without.

        Raises:
            DataError: There is no calibration data.
        """
        if not self.batches:
            raise DataError(f"compensation {method!r} needs calibration data; pass calibration=...")
        return self.batches


_SLICERS: WeakKeyDictionary[Groups, Slicer] = WeakKeyDictionary()


@runtime_checkable
class Method(Protocol):
    """One way to compensate."""

    def apply(self, context: Context) -> None:
        """Change ``context.module`` in place."""


METHODS: Registry[Callable[[], Method]] = Registry("compensation", "rlprune.compensation")
"""Methods by name: those of rlprune, and those that installed packages declare as entry points."""
