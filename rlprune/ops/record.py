"""What is known of one ATen operation: the record that every other room asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from rlprune.ops.tracer import Tracer

Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]
Rule = Callable[["Tracer", Any, Args, dict[str, Any], Any], None]
"""``rule(tracer, func, args, kwargs, out)``: reads the labels of operands, gives the results'."""
Macs = Callable[[Args, Any], int]
"""``macs(args, result)``: multiply-accumulates of one call."""


class Zeros(Enum):
    """Which tensor operands, being zero, make the result zero.

    For a point-wise op this holds value by value, for any other op of whole tensors.
    """

    NEVER = "none"
    FIRST = "the first"
    ANY = "any of them, as in a product"


class Moves(Enum):
    """Whether the result holds the values of the first operand, all of them and nothing else."""

    NO = "it computes, picks or joins"
    COPIES = "every value at its place"
    REARRANGES = "every value once, in another shape or order"
    REPEATS = "every value, repeated along new dimensions"


class Makes(Enum):
    """Whether the result is a new tensor that no operand's values go into."""

    NOTHING = "no: it depends on operands"
    ANYTHING = "of whatever values"
    ONE_VALUE = "of one value everywhere"
    ZEROS = "of zeros"


class Scaling(Enum):
    """What becomes of a unit that is ``t > 0`` times another unit of its group.

    ``degree`` is that of the record: ``f(t x) = t ** degree * f(x)``.
    """

    NONE = "nothing is known: no multiple of the other any more"
    EACH = "t ** degree times the other; several operands must scale alike"
    ALL = "the same, where all tensor operands hold the units"
    SUM = "as EACH, and a vector added to a layer's own answer joins its constants"
    PRODUCT = "degrees of the operands add up"
    QUOTIENT = "as EACH, where the divisor is common to all units"
    SLOPES = "as EACH, where all units share one slope"
    NORM = "batch normalisation folds into a layer's own answer"
    LAYER = "consumes the units of one group and makes those of another"


@dataclass(frozen=True)
class Operands:
    """Positions of the operands of a layer-like op among its arguments; None where it has none.

    Attributes:
        x: what comes in.
        weight: what it is multiplied with.
        bias: what is added; zero weight and bias make a zero result.
        statistics: running mean and variance.
        groups: the number of groups.
    """

    x: int = 0
    weight: int = 1
    bias: int | None = 2
    statistics: tuple[int, int] | None = None
    groups: int | None = None


@dataclass(frozen=True)
class Op:
    """One ATen operation, with all its overloads and its in-place form.

    Attributes:
        name: without "aten::" and the underscore of the in-place form; ops of other libraries with
            theirs ("mylib::gate").
        labels: the rule for labels; see `rlprune.ops`.
        pointwise: it works value by value.
        macs: multiply-accumulates of a call, None where nothing is counted. An op that has them is
            not computed in a trace.
        zeros: which operands make the result zero; may depend on the call.
        scaling: what it does to a unit that is a multiple of another.
        degree: the exponent ``scaling`` speaks of; may depend on the call, None where the op does
            not scale in this call.
        moves: whether the result is the operand's values.
        makes: whether the result is new.
        operands: which argument is which, for layers and normalisations.
        view: the result shares its operand's memory.
        layout: says how a tensor lies in memory and no more: of two runs of a network one may have
            it and the other not.
        looks: its result, or its shape, depends on values in a way that a trace without values
            cannot follow; may depend on the call.
    """

    name: str
    labels: Rule
    pointwise: bool = False
    macs: Macs | None = None
    zeros: Zeros | Callable[[Args, Kwargs], Zeros] = Zeros.NEVER
    scaling: Scaling = Scaling.NONE
    degree: float | Callable[[Args, Kwargs], float | None] = 1.0
    moves: Moves = Moves.NO
    makes: Makes = Makes.NOTHING
    operands: Operands | None = None
    view: bool = False
    layout: bool = False
    looks: bool | Callable[[Args], bool] = False

    def zeros_in(self, args: Args, kwargs: Kwargs) -> Zeros:
        """`zeros` of one call."""
        return self.zeros if isinstance(self.zeros, Zeros) else self.zeros(args, kwargs)

    def degree_in(self, args: Args, kwargs: Kwargs) -> float | None:
        """`degree` of one call."""
        return self.degree(args, kwargs) if callable(self.degree) else self.degree

    def looks_in(self, args: Args) -> bool:
        """`looks` of one call."""
        return self.looks(args) if callable(self.looks) else self.looks

    @cached_property
    def random(self) -> bool:
        """Whether it may draw random numbers, as PyTorch says itself."""
        return any(torch.Tag.nondeterministic_seeded in func.tags for func in overloads(self.name))

    @cached_property
    def listed(self) -> bool:
        """Whether it returns a list of like tensors, such as the parts of a split."""
        returns = [func._schema.returns for func in overloads(self.name)]
        return any(str(r.type) == "List[Tensor]" for of in returns[:1] for r in of)


def overloads(name: str) -> list[Any]:
    """Overloads of the op of that name (as `Op.name`); none where this PyTorch lacks it."""
    library, _, short = name.rpartition("::")
    packet = getattr(getattr(torch.ops, library or "aten"), short.split(".")[0], None)
    return [] if packet is None else [getattr(packet, o) for o in packet.overloads()]
