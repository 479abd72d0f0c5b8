"""Numbers as people read them."""

from __future__ import annotations

from rlprune.budgets.units import unit_of


def number(value: float | None, unit: str = "") -> str:
    """A number as its unit writes it: four significant digits, a metric prefix, the symbol."""
    return "-" if value is None else unit_of(unit).text(value)


def percent(value: float | None) -> str:
    """A share as a percentage with two digits."""
    return "-" if value is None else f"{100 * value:.2f} %"


def ratio(part: float | None, whole: float | None) -> str:
    """A part as a percentage of the whole."""
    return "-" if part is None or not whole else f"{100 * part / whole:.1f} %"


def duration(seconds: float) -> str:
    """A duration as seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
