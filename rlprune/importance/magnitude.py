"""Criteria that look at weights alone."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlprune.importance.base import ScoringData, combine, owner, unit_rows, weight_slices

if TYPE_CHECKING:
    from rlprune.structure import Group, Groups

logger = logging.getLogger(__name__)


def l1(groups: Groups, group: Group, data: ScoringData) -> Tensor:
    """Sum of absolute weights that produce the unit (Li et al., ICLR 2017)."""
    return combine(_norms(groups, group, data, 1))


def l2(groups: Groups, group: Group, data: ScoringData) -> Tensor:
    """Euclidean norm of the weights that produce the unit."""
    return combine(_norms(groups, group, data, 2))


def bn_scale(groups: Groups, group: Group, data: ScoringData) -> Tensor:
    """Absolute scale of the normalisation behind the unit (network slimming, Liu et al. 2017).

    Groups without a normalisation layer are ordered by :func:`l1`.
    """
    scales = [
        unit_rows(data.state[part.tensor], part).abs().sum(1)
        for part in groups.slices(group)
        if part.tensor.endswith("weight") and _is_norm(owner(groups.model, part.tensor))
    ]
    if not scales:
        logger.info("group %r has no normalisation layer; ordered by l1", group.name)
        return l1(groups, group, data)
    return combine(scales)


def fpgm(groups: Groups, group: Group, data: ScoringData) -> Tensor:
    """Sum of distances to the other units' weights (geometric median, He et al., CVPR 2019).

    A unit near the geometric median of its layer can be expressed by the others and goes first.
    """
    distances = []
    for part in weight_slices(groups, group):
        rows = unit_rows(data.state[part.tensor], part).double()
        distances.append(torch.cdist(rows, rows, compute_mode=_EXACT).sum(1))
    return combine(distances)


def random(groups: Groups, group: Group, data: ScoringData) -> Tensor:
    """Uniformly random order from the generator given."""
    return torch.rand(group.width, generator=data.generator)


_EXACT = "donot_use_mm_for_euclid_dist"
_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
)


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, _NORMS) or "Norm" in type(module).__name__


def _norms(groups: Groups, group: Group, data: ScoringData, order: int) -> list[Tensor]:
    return [
        unit_rows(data.state[part.tensor].double(), part).norm(p=order, dim=1)
        for part in weight_slices(groups, group)
    ]
