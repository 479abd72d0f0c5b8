"""What rules leave behind in a trace: products to count and conditions to settle at its end."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from rlprune.ops.labels import Labels, Planes


@dataclass(frozen=True)
class Factor:
    """One dimension of a contraction: its size and the labels along it, one line per plane."""

    size: int
    lines: Planes = ()


@dataclass(frozen=True)
class Contraction:
    """Multiply-accumulates of one op: the product of its factors."""

    module: str
    op: str
    factors: tuple[Factor, ...]


@dataclass(frozen=True)
class Rectangle:
    """A view split one labelled dimension into several: what is kept must stay a rectangle."""

    labels: Tensor
    where: str


@dataclass(frozen=True)
class Meeting:
    """An element-wise meeting of units that vary along more dimensions with some along fewer.

    Whether they are joined is settled at the end: a later product may have made whole heads units,
    and then a vector along the head size has nothing to join.
    """

    plane: Tensor
    partner: Tensor
    reason: str


@dataclass
class Notes:
    """What rules establish.

    Attributes:
        labels: which positions live and die together.
        kinds: kind of units ("channels", "heads", ...) by origin.
        contractions: products, in order.
        rectangles: splits to settle.
        meetings: meetings to settle.
        grouped: grouped convolutions and normalisations by module path: "groups" or "positions".
    """

    labels: Labels = field(default_factory=Labels)
    kinds: dict[int, str] = field(default_factory=dict)
    contractions: list[Contraction] = field(default_factory=list)
    rectangles: list[Rectangle] = field(default_factory=list)
    meetings: list[Meeting] = field(default_factory=list)
    grouped: dict[str, str] = field(default_factory=dict)
