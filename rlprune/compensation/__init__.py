"""Compensation: changing surviving weights so that the loss of the removed ones hurts less.

A method is any object with ``apply(context)``, found by its name in :data:`METHODS`, by the name of
an entry point ``rlprune.compensation``, or by its dotted path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from rlprune.batches import as_batches
from rlprune.compensation.base import METHODS, Context, Method
from rlprune.compensation.bias import BiasCompensation
from rlprune.compensation.bn import BatchNormRecalibration, recalibrate
from rlprune.compensation.cluster import ClusterMerge
from rlprune.compensation.least_squares import LeastSquares
from rlprune.compensation.merge import Merge
from rlprune.compensation.sequential import SequentialLeastSquares
from rlprune.compensation.statistics import batch_statistics
from rlprune.errors import ConfigError

if TYPE_CHECKING:
    from rlprune.plan import Plan
    from rlprune.structure import Groups


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
        item = METHODS.find(item)
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
    "BiasCompensation",
    "ClusterMerge",
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
