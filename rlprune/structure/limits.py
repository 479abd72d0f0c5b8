"""The caller's wishes about widths: exclusions, smallest widths, multiples, bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from math import ceil, floor, gcd

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

    def check(self, names: Sequence[str], modules: Sequence[str]) -> None:
        """Raise ConfigError for a glob that matches neither a group nor a module."""
        globs = [*self.exclude, *self.bounds, *(g for g in self.round_to if g != "*")]
        for glob in globs:
            if not matches([*names, *modules], glob):
                raise ConfigError(
                    f"the glob '{glob}' matches no module; groups are {', '.join(names[:12])}, ..."
                )

    def may_be_empty(self, group: Group, names: Sequence[str], modules: Sequence[str]) -> bool:
        """Whether the wishes allow a branch to be dropped with one of its groups.

        Args:
            group: inside the branch.
            names: of the group and of the modules that hold its units.
            modules: that would not run.
        """
        bounded = any(matches(names, glob) for glob in self.bounds)
        excluded = any(matches(modules, glob) for glob in self.exclude)
        return group.prunable and self.min_width == 1 and not bounded and not excluded

    def apply(self, group: Group, names: Sequence[str], per_unit: int) -> Group:
        """The group with its widths narrowed.

        Args:
            group: with all its widths.
            names: of the group and of the modules that hold its units.
            per_unit: channels that make up one unit.
        """
        if not group.prunable:
            return group
        hit = next((g for g in self.exclude if matches(names, g)), None)
        if hit is not None:
            return _frozen(group, f"excluded by '{hit}'")
        step = next((s for g, s in reversed(self.round_to.items()) if matches(names, g)), 1)
        divisor = step // gcd(step, per_unit)
        low, high = self.min_width, group.width
        for glob, (lowest, highest) in self.bounds.items():
            if matches(names, glob):
                low = max(self.min_width, ceil(lowest * group.width - 1e-9))
                high = max(1, floor(highest * group.width + 1e-9))
        first, last = -(-low // divisor) * divisor, high // divisor * divisor
        if high < group.width:
            if first > last:
                reason = f"no width in {low}..{high} is a multiple of {divisor}"
                return _frozen(group, reason)
            high = last
        elif first >= group.width:
            reason = f"no width below {group.width} is a multiple of {divisor} and at least {low}"
            return _frozen(group, reason)
        return replace(group, min_width=first, max_width=high, divisor=divisor)

    def above(self, group: Group, floor: int) -> Group:
        """The group with no width below a floor; left whole where no other is left."""
        if not group.prunable or floor <= group.min_width:
            return group
        raised = replace(group, min_width=floor)
        if all(w == group.width for w in raised.legal_widths()):
            return _frozen(group, f"its forward takes no width below {floor}")
        return raised


def matches(names: Sequence[str], glob: str) -> bool:
    """Whether a glob matches one of some names, or a module that contains it."""
    return any(fnmatch(part, glob) for name in names for part in _paths(name))


def _paths(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:k]) for k in range(len(parts), 0, -1)]


def _frozen(group: Group, reason: str) -> Group:
    whole = group.width
    return replace(
        group, prunable=False, reason=reason, min_width=whole, max_width=whole, divisor=1
    )
