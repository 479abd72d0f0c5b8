"""Units of budgets: which suffixes a limit may carry, and how values are written for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_COUNT = MappingProxyType({"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9})


@dataclass(frozen=True)
class Unit:
    """One unit.

    Attributes:
        name: What values are in, as `Budget.unit` says it: ``"MACs"``, ``"ms"``.
        symbol: Written behind a value; empty for counts.
        suffixes: What may follow a number in a limit, lower case -> its factor.
        prefixed: Whether large values get a metric prefix (k, M, G, T).
    """

    name: str
    symbol: str = ""
    suffixes: Mapping[str, float] = field(default_factory=dict)
    prefixed: bool = True

    def text(self, value: float) -> str:
        """A value with four significant digits, a metric prefix and the symbol."""
        if self.prefixed:
            for factor, prefix in _PREFIXES:
                if abs(value) >= factor:
                    return f"{value / factor:.4g} {prefix}{self.symbol}".rstrip()
        return f"{value:.4g} {self.symbol}".rstrip()


MACS = Unit("MACs", suffixes=_COUNT)
PARAMETERS = Unit("parameters", suffixes=_COUNT)
BYTES = Unit(
    "bytes",
    "B",
    MappingProxyType(
        {
            "b": 1.0,
            "kb": 1e3,
            "mb": 1e6,
            "gb": 1e9,
            "kib": 2.0**10,
            "mib": 2.0**20,
            "gib": 2.0**30,
        }
    ),
)
MILLISECONDS = Unit("ms", "ms", MappingProxyType({"us": 1e-3, "ms": 1.0, "s": 1e3}), prefixed=False)
SECONDS = Unit("s", "s", MappingProxyType({"s": 1.0, "ms": 1e-3, "min": 60.0}), prefixed=False)
MICROJOULES = Unit(
    "uJ", "uJ", MappingProxyType({"nj": 1e-3, "uj": 1.0, "mj": 1e3, "j": 1e6}), prefixed=False
)

_ALL = (MACS, PARAMETERS, BYTES, MILLISECONDS, SECONDS, MICROJOULES)
_KNOWN = {unit.name: unit for unit in _ALL}


def unit_of(name: str) -> Unit:
    """The unit of this name or symbol; an unknown one has no suffixes and is its own symbol."""
    symbols = {unit.symbol: unit for unit in _KNOWN.values() if unit.symbol}
    return _KNOWN.get(name) or symbols.get(name) or Unit(name, name)
