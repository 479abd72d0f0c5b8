"""What a built-in metric says about itself, in one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rlprune.budgets.base import Budget
from rlprune.plugins import Registry

METRICS: Registry[type[Budget]] = Registry("metric", "rlprune.budgets")
"""Names that stand for a budget when only a limit is given: those of rlprune, and those that
installed packages declare as entry points."""


class Metric(Budget):
    """Base of the built-in budgets: a fixed function, limits relative by default.

    A subclass states everything that is said about the metric anywhere, in its class attributes,
    and registers itself under its key: ``@METRICS.register("macs")``.
    """

    fractions: ClassVar[bool] = True
    guarded: ClassVar[bool] = False
    key: ClassVar[str] = ""
    """Its name in Python, on the command line and in reports."""
    title: ClassVar[str] = ""
    """What reports call it."""
    field: ClassVar[str] = ""
    """Its field in ``report.json``, where every report shows it whether it is a budget or not."""
    function: ClassVar[Callable[..., float]]
    """``(network, example inputs) -> value``, without a limit or options."""

    def __init__(self, limit: float | str = 0.5, name: str | None = None) -> None:
        super().__init__(type(self).function, limit, name or self.key)


def reported() -> list[type[Metric]]:
    """The metrics that every report shows, those that are measured last."""
    shown = [m for m in METRICS.values() if issubclass(m, Metric) and m.field]
    return sorted(shown, key=lambda metric: metric.measured)
