"""The caller's wishes about widths: exclusions, smallest widths, multiples, bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from math import gcd

from rlprune.errors import ConfigError
from rlprune.structure.groups import Group

Bounds = Mapping[str, tuple[float, float]]


class Limits:
    """The caller's wishes about widths, by module-name globs."""

    def __init__(
        self,
        exclude: Sequence[str],
        min_width: int,
        round_to: int | Mapping[str, int],
        bounds: Bounds,
    ) -> None:
        if isinstance(exclude, str):
            exclude = (exclude,)
        if min_width < 1:
            raise ConfigError(f"min_width is {min_width}; it must be at least 1")
        self.exclude = tuple(exclude)
        self.min_width = min_width
        self.round_to = {"*": round_to} if isinstance(round_to, int) else dict(round_to)
        self.bounds = dict(bounds)
        for glob, step in self.round_to.items():
            if step < 1:
                raise ConfigError(f"round_to for '{glob}' is {step}; it must be at least 1")
        for glob, (low, high) in self.bounds.items():
            if not 0 < low <= high <= 1:
                raise ConfigError(
                    f"bounds for '{glob}' are ({low}, {high}); need 0 < lowest <= highest <= 1"
                )

    def check(self, names: Sequence[str]) -> None:
        """Raise ConfigError for a glob that matches none of the groups' names."""
        globs = [*self.exclude, *self.bounds, *(g for g in self.round_to if g != "*")]
        for glob in globs:
            if not any(fnmatch(n, glob) for n in names):
                raise ConfigError(
                    f"the glob '{glob}' matches no group; groups are {', '.join(names[:12])}, ..."
                )

    def apply(self, group: Group, per_unit: int) -> Group:
        """The group with its widths narrowed; ``per_unit`` channels make up one of its units."""
        hit = next((g for g in self.exclude if fnmatch(group.name, g)), None)
        if hit is not None and group.prunable:
            return _frozen(group, f"excluded by '{hit}'")
        if not group.prunable:
            return group
        step = next((s for g, s in reversed(self.round_to.items()) if fnmatch(group.name, g)), 1)
        divisor = step // gcd(step, per_unit)
        low, high = 1, group.width
        for glob, (a, b) in self.bounds.items():
            if fnmatch(group.name, glob):
                low, high = max(1, round(a * group.width)), max(1, round(b * group.width))
        low = min(max(low, self.min_width), group.width)
        if high < group.width:
            high = max(high // divisor * divisor, divisor)
        if low > high or (divisor > high and high < group.width):
            return _frozen(group, f"no width in [{low}, {high}] is a multiple of {divisor}")
        if divisor >= group.width or low >= group.width:
            return _frozen(group, f"min width {low}, multiples of {divisor}: no smaller width")
        return replace(group, min_width=low, max_width=high, divisor=divisor)


def _frozen(group: Group, reason: str) -> Group:
    whole = group.width
    return replace(
        group, prunable=False, reason=reason, min_width=whole, max_width=whole, divisor=1
    )
