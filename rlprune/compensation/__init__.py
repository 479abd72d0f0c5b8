"""Compensation: changing surviving weights so that the loss of the removed ones hurts less.

A method is any object with ``apply(context)``; :data:`METHODS` holds the built-in ones by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import nn

from rlprune.batches import as_batches
from rlprune.compensation.bn import batch_statistics, recalibrate
from rlprune.compensation.context import Context
from rlprune.compensation.least_squares import LeastSquares
from rlprune.compensation.merge import Merge
from rlprune.compensation.sequential import SequentialLeastSquares
from rlprune.errors import ConfigError, DataError
from rlprune.locate import locate

if TYPE_CHECKING:
    from rlprune.plan import Plan
    from rlprune.structure import Groups


@runtime_checkable
class Method(Protocol):
    """One way to compensate."""

    def apply(self, context: Context) -> None:
        """Change ``context.module`` in place."""


class BatchNormRecalibration:
    """Recompute running statistics on the calibration batches."""

    def apply(self, context: Context) -> None:
        """Recalibrate the compacted network.

        Raises:
            DataError: There is no calibration data.
        """
        if not context.batches:
            raise DataError("compensation 'bn' needs calibration data; pass calibration=...")
        recalibrate(context.module, context.batches)


METHODS: dict[str, Callable[[], Method]] = {
    "merge": Merge,
    "bn": BatchNormRecalibration,
    "least_squares": LeastSquares,
    "sequential": SequentialLeastSquares,
}
"""Built-in methods by name."""


def methods(compensation: Any) -> tuple[Method, ...]:
    """Read a choice of methods.

    Args:
        compensation: None, a name, a dotted path, a method object, or a sequence of these.

    Returns:
        The methods, in the order they are applied.

    Raises:
        ConfigError: A name is unknown or an object has no ``apply``.
    """
    if compensation is None:
        return ()
    if isinstance(compensation, str) or not isinstance(compensation, Sequence):
        compensation = (compensation,)
    return tuple(_method(item) for item in compensation)


def reconstructs(compensation: Any) -> bool:
    """Whether a choice of methods holds a least-squares fit; see `methods`. Nothing is checked."""
    if isinstance(compensation, str) or not isinstance(compensation, Sequence):
        compensation = (compensation,)
    return any(
        item == "least_squares" or isinstance(item, LeastSquares) or is_sequential(item)
        for item in compensation
    )


def is_sequential(item: Any) -> bool:
    """Whether an entry of a choice of methods is sequential least squares."""
    return item == "sequential" or isinstance(item, SequentialLeastSquares)


def _method(item: Any) -> Method:
    if isinstance(item, str):
        if item in METHODS:
            return METHODS[item]()
        if "." not in item:
            raise ConfigError(
                f"compensation {item!r} is unknown; choose one of {', '.join(METHODS)}, or give "
                "the dotted path of a class with apply(context)"
            )
        item = locate(item)
    if isinstance(item, type):
        item = item()
    if not isinstance(item, Method):
        raise ConfigError(f"compensation {item!r} has no method apply(context)")
    return item


def compensate(
    groups: Groups, plan: Plan, module: nn.Module, compensation: Any, calibration: Any = None
) -> nn.Module:
    """Apply methods to a compacted network, one after the other.

    Args:
        groups: The dense network's groups.
        plan: Which units are kept.
        module: The compacted network; changed in place.
        compensation: Which methods (see :func:`methods`).
        calibration: Calibration data (see :func:`rlprune.batches.as_batches`).

    Returns:
        The module.
    """
    context = Context(groups, plan, module, as_batches(calibration))
    for method in methods(compensation):
        method.apply(context)
    return module


__all__ = [
    "METHODS",
    "BatchNormRecalibration",
    "Context",
    "LeastSquares",
    "Merge",
    "Method",
    "SequentialLeastSquares",
    "batch_statistics",
    "compensate",
    "is_sequential",
    "methods",
    "recalibrate",
]
