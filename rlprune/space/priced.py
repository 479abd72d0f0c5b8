"""What the space asks of a problem: what plans cost, and what is predicted of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

    from rlprune.budgets import ResolvedBudget
    from rlprune.plan import Plan
    from rlprune.space.space import Space


class Priced(Protocol):
    """The part of a problem that knows costs; quality is none of the space's business."""

    @property
    def space(self) -> Space:
        """The decisions."""

    @property
    def budgets(self) -> tuple[ResolvedBudget, ...]:
        """What plans have to meet."""

    @property
    def sensitivity(self) -> tuple[np.ndarray, ...] | None:
        """Predicted damage of every group by kept units, ``[width + 1]``; None without one."""

    @property
    def priced(self) -> Mapping[Plan, Mapping[str, float]]:
        """Values of the black boxes of every plan measured in this search, in order."""

    def costs(self, plan: Plan) -> dict[str, float]:
        """Budget name -> value of a plan."""

    def violations(self, plan: Plan) -> dict[str, float]:
        """Budget name -> ``value / limit - 1`` of a plan."""
