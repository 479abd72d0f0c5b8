"""Numbers as people read them."""

from __future__ import annotations

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_SYMBOLS = {"MACs": "", "parameters": "", "bytes": "B"}
_UNPREFIXED = ("ms", "s")


def number(value: float | None, unit: str = "") -> str:
    """A number with four significant digits, a metric prefix and the unit's symbol.

    MACs and parameters are counts and carry no symbol.
    """
    if value is None:
        return "-"
    symbol = _SYMBOLS.get(unit, unit)
    if symbol not in _UNPREFIXED:
        for factor, prefix in _PREFIXES:
            if abs(value) >= factor:
                return f"{value / factor:.4g} {prefix}{symbol}".rstrip()
    return f"{value:.4g} {symbol}".rstrip()


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
