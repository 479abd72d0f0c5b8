"""From a network to a smaller one in one call, without a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from rlprune.compaction import build, discover, masked_copy, verify
from rlprune.compensation import compensate
from rlprune.plan import Plan


def mask(model: nn.Module, example_inputs: Any, plan: Plan) -> nn.Module:
    """Dense copy of a network in which the plan's removed units are silenced.

    Their outgoing weights are zero, so nothing downstream sees them. Costs what the dense network
    costs; it is the reference that the compacted network must equal (law 1).
    """
    return masked_copy(discover(model, example_inputs), plan)


def compact(
    model: nn.Module,
    example_inputs: Any,
    plan: Plan,
    *,
    compensation: str | Sequence[Any] | Any | None = None,
    calibration: Any = None,
) -> nn.Module:
    """Build the smaller dense network that a plan describes.

    Args:
        model: the dense network; not changed.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.
        plan: from `Plan.uniform`, `Plan.from_widths`, `rlprune.prune`, ...
        compensation: how surviving weights make up for removed ones: ``merge`` (needs no data),
            ``bias``, ``least_squares``, ``sequential``, ``bn``, a method object, or several,
            applied in order (see `rlprune.compensation`). None leaves surviving weights as they
            are.
        calibration: batches of inputs for methods that need data.

    Returns:
        A module of the same class as ``model`` whose tensors are smaller. Before it is returned,
        its output on the example inputs is compared with the masked network's.

    Raises:
        PlanError: the plan does not fit the network.
        StructureError: the smaller network does not compute what the masked one does, for example
            because a size is written into a ``forward``; names the module and the op.
    """
    groups = discover(model, example_inputs)
    small = build(groups, plan)
    verify(groups, small, plan)
    if compensation is not None:
        compensate(groups, plan, small, compensation, calibration)
    return small


def merge(
    model: nn.Module,
    example_inputs: Any,
    keep: float = 0.5,
    *,
    importance: Any = "l1",
    exclude: Sequence[str] = (),
) -> nn.Module:
    """Shrink a network by merging units into those most like them, without data or training.

    Neuron merging (Kim, Kim, Park, Jeon, NeurIPS 2020): the outgoing weights of every removed unit
    are added, scaled, to those of the kept unit that its own weights are nearest to. Exact where
    one unit is a positive multiple of another behind positively homogeneous activations (ReLU,
    leaky ReLU, PReLU with a shared slope, absolute value, squares, pooling, ...); behind others
    nothing can be merged, and units are pruned (logged, with the reason).

    Args:
        model: the trained network; not changed.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.
        keep: share of every group's units to keep, in (0, 1].
        importance: criterion that decides which units stay (see `rlprune.importance`).
        exclude: module-name globs of groups to leave whole.

    Returns:
        A smaller, dense module of the same class.

    Raises:
        PlanError: ``keep`` is out of range.
        StructureError: nothing of the network can be pruned, or it cannot be traced.

    Example:
        >>> small = rlprune.merge(model, torch.randn(1, 3, 32, 32), keep=0.5)
    """
    groups = discover(model, example_inputs, exclude=exclude)
    plan = Plan.uniform(groups, keep, importance)
    small = build(groups, plan)
    verify(groups, small, plan)
    return compensate(groups, plan, small, "merge")
