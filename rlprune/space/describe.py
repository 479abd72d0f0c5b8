"""What a policy may know about every decision before it decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

if TYPE_CHECKING:
    from rlprune.space.space import Space
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


def features(space: Space) -> np.ndarray:
    """Static description of every decision.

    ``depth`` runs from -1 (first) to 1 (last); ``log_width`` is log2 of the dense width (of the
    widest group of a tie or branch), 1 to 1024 units mapped to [-1, 1]; ``macs_share`` and
    ``params_share`` are the shares of the dense network this decision alone can save, relative to
    the largest such share; ``log_kernel`` and ``log_stride`` are log2 of the first producing
    layer's kernel and stride over 3; ``coupled_layers`` is log2 of the number of layers the units
    run through over 5; ``min_ratio`` is the smallest keep ratio allowed, 0 for a branch;
    ``importance_spread`` is the coefficient of variation of the importance scores and
    ``importance_top_half`` the share of their sum the better half holds, mapped from [0.5, 1] to
    [-1, 1]; of several groups the mean.

    Returns:
        ``[decisions, len(FEATURES)]`` float32, clipped to [-1, 1].
    """
    macs = _savings(space, space.groups.macs)
    params = _savings(space, space.groups.params)
    last = max(len(space) - 1, 1)
    rows = []
    for position, decision in enumerate(space.decisions):
        members: list[Group] = [space.groups.prunable[column] for column in decision.columns]
        kernel, stride = _geometry(space.groups.model, members[0])
        spread = [_concentration(space.scores[group.name]) for group in members]
        layers = len({module for group in members for module in group.modules})
        rows.append(
            (
                2 * position / last - 1,
                math.log2(max(group.width for group in members)) / 5 - 1,
                macs[position],
                params[position],
                math.log2(kernel) / 3,
                math.log2(stride) / 3,
                math.log2(max(layers, 1)) / 5,
                space.lowest[position],
                *np.mean(spread, axis=0),
            )
        )
    return np.clip(np.array(rows, dtype=np.float32), -1.0, 1.0)


def _savings(space: Space, cost: Callable[[Sequence[int]], float]) -> list[float]:
    full = cost(space.counts(space.largest))
    drops = []
    for row, low in enumerate(space.smallest):
        choice = list(space.largest)
        choice[row] = low
        drops.append(full - cost(space.counts(tuple(choice))))
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
