"""Limits: what a user may write after a budget's name, and what it means in absolute units."""

from __future__ import annotations

import math
import numbers
import re
from dataclasses import dataclass
from typing import Any

from rlprune.budgets.units import unit_of
from rlprune.errors import BudgetError

_TEXT = re.compile(
    r"^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?nan|[-+]?inf)\s*(.*?)\s*$", re.I
)


@dataclass(frozen=True)
class Limit:
    """A parsed limit: a share of the dense network's value, or an absolute number.

    Attributes:
        value: The share in (0, 1], or the absolute limit in the budget's unit; positive.
        relative: Whether ``value`` is a share.
    """

    value: float
    relative: bool

    def absolute(self, dense: float) -> float:
        """The limit in the budget's unit, given the dense network's value."""
        return self.value * dense if self.relative else self.value

    def __str__(self) -> str:
        return f"{100 * self.value:.12g}%" if self.relative else f"{self.value:.12g}"


def parse_limit(limit: Any, *, budget: str, unit: str, fractions: bool) -> Limit:
    """Read a limit as a user writes it.

    A string ending in ``%`` is always relative to the dense network. A number in (0, 1] is
    relative for the built-in metrics and absolute for a user's own function; any other number is
    absolute. Built-in metrics also take a number with a unit: ``"60M"`` MACs, ``"1.5 MB"``,
    ``"0.8 ms"``, which is how an absolute limit of at most 1 is written.

    Args:
        limit: A number or a string.
        budget: The budget's name, for messages.
        unit: The budget's unit; decides which suffixes are known.
        fractions: Whether a plain number in (0, 1] is a share of the dense value.

    Returns:
        The parsed limit.

    Raises:
        BudgetError: The limit is not a positive finite number, or a share above 100 %.
    """
    if isinstance(limit, bool) or not isinstance(limit, (str, numbers.Real)):
        raise BudgetError(
            f"budget {budget!r}: limit must be a number or a string such as '50%', got {limit!r}"
        )
    if isinstance(limit, str):
        return _parse_text(limit, budget, unit, fractions)
    number = float(limit)
    _require_positive(number, limit, budget)
    return Limit(number, relative=fractions and number <= 1)


def _parse_text(text: str, budget: str, unit: str, fractions: bool) -> Limit:
    match = _TEXT.match(text)
    if match is None:
        raise BudgetError(f"budget {budget!r}: cannot read the limit {text!r}; {_examples(unit)}")
    number, suffix = float(match.group(1)), match.group(2)
    _require_positive(number, text, budget)
    if suffix == "%":
        if number > 100 and fractions:
            raise BudgetError(
                f"budget {budget!r}: limit {text!r} is more than the dense network's value; "
                "give a percentage in (0, 100]"
            )
        return Limit(number / 100, relative=True)
    if not suffix:
        return Limit(number, relative=fractions and number <= 1)
    scale = unit_of(unit).suffixes.get(suffix.lower())
    if scale is None:
        raise BudgetError(
            f"budget {budget!r}: unknown unit {suffix!r} in the limit {text!r}; {_examples(unit)}"
        )
    return Limit(number * scale, relative=False)


def _require_positive(number: float, shown: object, budget: str) -> None:
    if not math.isfinite(number) or number <= 0:
        raise BudgetError(
            f"budget {budget!r}: limit must be a positive finite number, got {shown!r}"
        )


def _examples(unit: str) -> str:
    suffixes = unit_of(unit).suffixes
    if not suffixes:
        return "write a number such as 3.2, or a share of the dense value such as '50%'"
    known = ", ".join(suffixes)
    return f"write 0.5 or '50%' of the dense value, or a number of {unit} (suffixes: {known})"
