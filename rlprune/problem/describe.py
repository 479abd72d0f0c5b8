"""What a policy may know about every decision before it decides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

if TYPE_CHECKING:
    from rlprune.problem.problem import Problem
    from rlprune.structure import Group

FEATURES = (
    "depth",
    "log_width",
    "macs_share",
    "params_share",
    "log_kernel",
    "log_stride",
    "coupled_layers",
    "min_ratio",
    "importance_spread",
    "importance_top_half",
)
"""Columns of :func:`features`."""


def cost_shares(problem: Problem) -> np.ndarray:
    """Relative drop of every budget when one group alone goes to its minimum width.

    Args:
        problem: The evaluator.

    Returns:
        ``[decisions, budgets]`` float64.
    """
    full = problem.costs(problem.max_widths)
    shares = np.zeros((len(problem.decisions), len(problem.budgets)))
    for row, low in enumerate(problem.min_widths):
        widths = list(problem.max_widths)
        widths[row] = low
        costs = problem.costs(widths)
        for column, budget in enumerate(problem.budgets):
            dense = full[budget.name]
            shares[row, column] = (dense - costs[budget.name]) / dense if dense else 0.0
    return shares


def features(problem: Problem, scores: Mapping[str, Tensor]) -> np.ndarray:
    """Static description of every decision.

    ``depth`` runs from -1 (first) to 1 (last); ``log_width`` is log2 of the dense width, 1 to
    1024 units mapped to [-1, 1]; ``macs_share`` and ``params_share`` are the shares of the dense
    network this group alone can save, relative to the largest such share; ``log_kernel`` and
    ``log_stride`` are log2 of the producing layer's kernel and stride over 3; ``coupled_layers``
    is log2 of the number of layers the units run through over 5; ``min_ratio`` is the smallest
    keep ratio allowed; ``importance_spread`` is the coefficient of variation of the importance
    scores and ``importance_top_half`` the share of their sum the better half holds, mapped from
    [0.5, 1] to [-1, 1].

    Args:
        problem: The evaluator.
        scores: Importance of every group's units.

    Returns:
        ``[decisions, len(FEATURES)]`` float32, clipped to [-1, 1].
    """
    macs = _savings(problem, problem.groups.macs)
    params = _savings(problem, problem.groups.params)
    last = max(len(problem.decisions) - 1, 1)
    rows = []
    for position, group in enumerate(problem.decisions):
        kernel, stride = _geometry(problem.groups.model, group)
        spread, top_half = _concentration(scores[group.name])
        rows.append(
            (
                2 * position / last - 1,
                math.log2(group.width) / 5 - 1,
                macs[position],
                params[position],
                math.log2(kernel) / 3,
                math.log2(stride) / 3,
                math.log2(max(len(group.modules), 1)) / 5,
                problem.min_widths[position] / group.width,
                spread,
                top_half,
            )
        )
    return np.clip(np.array(rows, dtype=np.float32), -1.0, 1.0)


def _savings(problem: Problem, cost: object) -> list[float]:
    assert callable(cost)
    full = cost(problem.max_widths)
    drops = []
    for row, low in enumerate(problem.min_widths):
        widths = list(problem.max_widths)
        widths[row] = low
        drops.append(full - cost(widths))
    largest = max(max(drops), 1e-12)
    return [drop / largest for drop in drops]


def _geometry(model: nn.Module, group: Group) -> tuple[float, float]:
    """Kernel and stride of the first convolution among a group's layers; 1 without any."""
    for name in group.modules:
        module = model.get_submodule(name)
        if isinstance(module, nn.modules.conv._ConvNd):
            return float(max(module.kernel_size)), float(max(module.stride))
    return 1.0, 1.0


def _concentration(score: Tensor) -> tuple[float, float]:
    ordered = score.double().clamp_min(0).sort(descending=True).values
    total = float(ordered.sum())
    if total <= 0 or len(ordered) < 2:
        return 0.0, 0.0
    half = math.ceil(len(ordered) / 2)
    share = float(ordered[:half].sum()) / total
    return float(ordered.std() / ordered.mean()), 4 * share - 3
