"""A number that says how good a network is, and how people read it."""

from __future__ import annotations

from dataclasses import dataclass

SHARE = "%"
"""Unit of metrics in [0, 1] that are read as percentages."""


@dataclass(frozen=True)
class Metric:
    """One metric of a task.

    Attributes:
        name: Its key in reports and histories, such as ``accuracy``.
        label: What people call it.
        higher_is_better: Its direction.
        unit: ``%`` for shares in [0, 1]; else what stands behind the number, empty for none.
    """

    name: str
    label: str
    higher_is_better: bool = True
    unit: str = ""

    @property
    def scale(self) -> float:
        """What values are multiplied by before they are shown: 100 for shares."""
        return 100.0 if self.unit == SHARE else 1.0

    @property
    def axis(self) -> str:
        """Name of an axis that shows it."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def show(self, value: float | None) -> str:
        """A value as text."""
        if value is None:
            return "-"
        if self.unit == SHARE:
            return f"{100 * value:.2f} %"
        return f"{value:.4g} {self.unit}".rstrip()

    def change(self, before: float, after: float) -> str:
        """The difference as text, with its sign: in points for shares."""
        if self.unit == SHARE:
            return f"{100 * (after - before):+.2f} points"
        return f"{after - before:+.4g} {self.unit}".rstrip()

    def score(self, value: float) -> float:
        """The value with the sign that makes higher better."""
        return value if self.higher_is_better else -value

    def worse(self, before: float, after: float) -> bool:
        """Whether ``after`` is noticeably worse: by a point, or by a hundredth for non-shares."""
        least = 0.01 if self.unit == SHARE else 0.01 * abs(before)
        return self.score(after) < self.score(before) - least
