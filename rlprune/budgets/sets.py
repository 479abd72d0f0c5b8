"""Budgets with a list of limits: one set of budgets per limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlprune.budgets.base import Budget
from rlprune.budgets.config import parse
from rlprune.errors import ConfigError


@dataclass(frozen=True)
class BudgetSets:
    """What a run has to meet: one set of budgets, or one for every limit of a front.

    Attributes:
        varied: Name of the budget whose limit was given as a list; None for a single run.
        sets: The sets of budgets, loosest first.
    """

    varied: str | None
    sets: tuple[tuple[Budget, ...], ...]

    @property
    def limits(self) -> tuple[Budget, ...]:
        """The varied budget at each of its limits, loosest first."""
        return tuple(b for chosen in self.sets for b in chosen if b.name == self.varied)

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of each limit, fit for a folder: ``macs_50`` for half of the dense MACs."""
        return tuple(
            f"{b.name}_{100 * b.limit.value if b.limit.relative else b.limit.value:.12g}"
            for b in self.limits
        )


def sets(budgets: Mapping[str, Any] | Sequence[Budget]) -> BudgetSets:
    """Read budgets of which one may have several limits.

    Args:
        budgets: As for :func:`rlprune.budgets.parse`; the value of one name may also be a list of
            limits or budgets, or a configuration node whose ``limit`` is a list.

    Returns:
        The sets, loosest limit first.

    Raises:
        ConfigError: More than one budget has a list, or a list is empty, repeats a limit, or mixes
            shares with absolute limits.
        BudgetError: A budget is malformed.

    Example:
        >>> sets({"macs": [0.7, 0.5, 0.3], "params": 0.5}).labels
        ('macs_70', 'macs_50', 'macs_30')
    """
    if not isinstance(budgets, Mapping):
        return BudgetSets(None, (parse(budgets),))
    lists = {str(name): found for name, v in budgets.items() if (found := _listed(v)) is not None}
    if not lists:
        return BudgetSets(None, (parse(budgets),))
    if len(lists) > 1:
        raise ConfigError(
            f"only one budget may have a list of limits, got {', '.join(lists)}; give the others "
            "one limit each"
        )
    ((name, values),) = lists.items()
    if not values:
        raise ConfigError(f"budget {name!r}: its list of limits is empty; give at least one")
    found = [parse({**{str(k): v for k, v in budgets.items()}, name: value}) for value in values]
    result = BudgetSets(name, tuple(found))
    limits = [budget.limit for budget in result.limits]
    if len({limit.relative for limit in limits}) > 1:
        raise ConfigError(
            f"budget {name!r}: the limits {', '.join(map(str, limits))} mix shares of the dense "
            "value with absolute numbers; write all of them one way"
        )
    if len(set(result.labels)) < len(limits):
        raise ConfigError(
            f"budget {name!r}: the limits {', '.join(map(str, limits))} repeat one; give each once"
        )
    order = sorted(range(len(found)), key=lambda i: -limits[i].value)
    return BudgetSets(name, tuple(found[i] for i in order))


def _listed(value: Any) -> list[Any] | None:
    """What a budget is given as for each of its limits; None for a single limit."""
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, Mapping) and isinstance(value.get("limit"), (list, tuple)):
        return [{**value, "limit": limit} for limit in value["limit"]]
    return None
