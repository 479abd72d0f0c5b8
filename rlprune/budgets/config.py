"""Budgets from what users write: mappings in Python, nodes of a configuration."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from rlprune.budgets.base import Budget, ResolvedBudget
from rlprune.budgets.metric import METRICS
from rlprune.errors import BudgetError, ConfigError
from rlprune.locate import locate


def parse(budgets: Mapping[str, Any] | Sequence[Budget]) -> tuple[Budget, ...]:
    """Read a set of budgets.

    Args:
        budgets: Name -> budget. A value is a :class:`Budget`; a limit (number or string), when
            the name is one of the built-in metrics; or a configuration node (see
            :func:`from_config`). A sequence of budgets with distinct names works too.

    Returns:
        The budgets, in the order given, each carrying its name.

    Raises:
        BudgetError: There is none, a name is unknown or used twice, or a limit is unusable.

    Example:
        >>> parse({"macs": 0.5, "params": "20%", "latency": Latency(0.7)})
    """
    if isinstance(budgets, Mapping):
        parsed = tuple(_parse_one(str(name), value) for name, value in budgets.items())
    else:
        parsed = tuple(_parse_one("", value) for value in budgets)
    if not parsed:
        raise BudgetError("no budget given; name at least one, for example {'macs': 0.5}")
    names = [budget.name for budget in parsed]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise BudgetError(f"budget names must differ; used twice: {', '.join(sorted(repeated))}")
    return parsed


def from_config(budgets: Mapping[str, Any]) -> dict[str, Budget]:
    """Read the ``budget`` part of a configuration.

    Every value is a limit, or a node with ``_target_`` and the target's arguments. A target that
    names a :class:`Budget` class is built with them; any other callable becomes the function of
    a budget: ``limit`` is the budget's, the remaining keys are bound to the function.

    Args:
        budgets: Budget name -> limit or node. A name set to null is left out, which is how a
            budget of a chosen configuration is switched off.

    Returns:
        Name -> budget.

    Raises:
        BudgetError: A node is malformed or a target refuses its arguments.
        ConfigError: A target cannot be imported.

    Example:
        >>> from_config({"energy": {"_target_": "my_package.energy", "limit": 3.2, "volts": 1.1}})
    """
    chosen = {str(name): value for name, value in budgets.items() if value is not None}
    return {budget.name: budget for budget in parse(chosen)}


def resolve(
    budgets: Mapping[str, Any] | Sequence[Budget],
    model: Any,
    example_inputs: Any,
    groups: Any = None,
) -> tuple[ResolvedBudget, ...]:
    """Parse budgets and bind them to a dense network in one go (see :meth:`Budget.resolve`)."""
    return tuple(item.resolve(model, example_inputs, groups) for item in parse(budgets))


def _parse_one(name: str, value: Any) -> Budget:
    if isinstance(value, Budget):
        return value.named(name) if name else value
    if isinstance(value, Mapping):
        return _from_node(name, value)
    if isinstance(value, (list, tuple)):
        raise BudgetError(
            f"budget {name!r}: one limit is expected here, got {list(value)}; several limits make "
            "a front, for which see rlprune.prune"
        )
    if not name:
        raise BudgetError(f"expected a Budget, got {value!r}; or give a mapping of name to limit")
    if callable(value):
        raise BudgetError(
            f"budget {name!r}: a function needs a limit; "
            f"write Budget(fn={_shown(value)}, limit=...)"
        )
    if name not in METRICS.names():
        raise BudgetError(
            f"budget {name!r}: not a built-in metric ({', '.join(METRICS.names())}); "
            "for a function of your own write Budget(fn=..., limit=...)"
        )
    return METRICS.find(name)(limit=value, name=name)  # type: ignore[call-arg]


def _from_node(name: str, node: Mapping[str, Any]) -> Budget:
    arguments = {str(key): value for key, value in node.items()}
    target = arguments.pop("_target_", None)
    if target is None:
        if name not in METRICS.names():
            raise BudgetError(
                f"budget {name!r}: the node needs _target_, the dotted path of a function "
                f"(model, example_inputs) -> float; without it the name must be one of "
                f"{', '.join(METRICS.names())}"
            )
        found: Any = METRICS.find(name)
    else:
        found = _located(name, str(target))
    if inspect.isclass(found) and issubclass(found, Budget) and found is not Budget:
        return _built(name, found, {**arguments, "name": arguments.get("name", name)})
    if "limit" not in arguments:
        raise BudgetError(f"budget {name!r}: give a limit (budget.{name}.limit=...)")
    limit = arguments.pop("limit")
    version = None if _takes(found, "version") else arguments.pop("version", None)
    if found is Budget:
        fn = arguments.pop("fn", None)
        found = _located(name, fn) if isinstance(fn, str) else fn
    if inspect.isclass(found):
        found = _built(name, found, arguments)
    elif arguments and callable(found):
        found = functools.partial(found, **arguments)
    return Budget(fn=found, limit=limit, name=name, version=version)


def _takes(target: Any, name: str) -> bool:
    """Whether a function of the user's has an argument of this name itself."""
    try:
        return target is not Budget and name in inspect.signature(target).parameters
    except (TypeError, ValueError):
        return False


def _located(name: str, path: str) -> Any:
    try:
        return locate(path)
    except ConfigError as error:
        raise ConfigError(f"budget {name!r}: {error}") from error


def _built(name: str, target: Any, arguments: dict[str, Any]) -> Any:
    try:
        return target(**arguments)
    except TypeError as error:
        raise BudgetError(
            f"budget {name!r}: {target.__name__} refuses {arguments}: {error}"
        ) from error


def _shown(value: Any) -> str:
    return getattr(value, "__name__", repr(value))
