"""What a rule may ask and tell while a network is traced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from rlprune.ops.labels import Planes
from rlprune.ops.notes import Contraction, Notes
from rlprune.ops.pending import Pending
from rlprune.ops.uniform import Uniform


class Tracer(Protocol):
    """The part of `rlprune.structure.trace.Tracer` that rules use.

    Attributes:
        trace: where they leave their findings; ``trace.labels.union`` joins units.
        pending: reasons that count only if a result is used.
        uniform: constants that follow a size.
        current: path of the running module.
    """

    pending: Pending
    uniform: Uniform

    @property
    def trace(self) -> Notes:
        """Where rules leave their findings."""

    def current(self) -> str:
        """Path of the running module."""

    def where(self, op: str = "") -> str:
        """The op and the running module in words: the beginning of a reason."""

    def planes(self, tensor: Any) -> Planes:
        """Label planes of a tensor."""

    def set_planes(self, tensor: Tensor, planes: Sequence[Tensor], weight: bool = False) -> None:
        """Record what a result carries, and whether it is zero where its parameter is zero."""

    def is_weight(self, tensor: Any) -> bool:
        """Whether a tensor is made of parameters alone."""

    def freeze(self, planes: Sequence[Tensor], reason: str) -> None:
        """Make every unit in some planes not removable."""

    def mark(self, plane: Tensor, role: str, kind: str = "") -> None:
        """Say that a weight's dimension produces ("out") or consumes ("in") units."""

    def record(self, contraction: Contraction) -> None:
        """Note the multiply-accumulates of a call."""

    def note_whole(self, reason: str, inputs: Sequence[Tensor] = ()) -> None:
        """List the running module as left whole."""
