"""Mean activation criterion."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from torch import Tensor, nn

from rlprune.importance.base import ScoringData, combine
from rlprune.importance.magnitude import l2
from rlprune.observe import Observation, Site, by_unit, stream

if TYPE_CHECKING:
    from rlprune.structure import Group, Groups

logger = logging.getLogger(__name__)


def activation(groups: Groups, group: Group, data: ScoringData) -> Tensor:
    """Mean absolute output of the layers that produce the unit, over the calibration data.

    Groups that no convolution, linear or embedding layer produces through its own ``forward``
    (the projections inside ``nn.MultiheadAttention``, bare parameters) are ordered by ``l2``.

    Raises:
        DataError: There is no calibration data.
    """
    means = data.once("activation", lambda: mean_outputs(groups, data))
    scores = []
    for part in groups.slices(group):
        name = part.tensor.rpartition(".")[0]
        if part.role == "out" and name in means:
            scores.append(means[name][part.index.cpu()].sum(1))
    if not scores:
        logger.info("no layer of group %r shows its output; ordered by l2", group.name)
        return l2(groups, group, data)
    return combine(scores)


def mean_outputs(groups: Groups, data: ScoringData) -> dict[str, Tensor]:
    """Mean absolute output per channel of every producing layer.

    Args:
        groups: The groups; their network is run in eval mode.
        data: Calibration batches.

    Returns:
        Module name -> ``[channels]`` float64.
    """
    batches = data.require("activation")
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def add(seen: Observation) -> None:
        name, units = seen.site.path, by_unit(seen).abs().double()
        sums[name] = sums.get(name, 0) + units.sum(1).cpu()
        counts[name] = counts.get(name, 0) + units.shape[1]

    names = {
        part.tensor.rpartition(".")[0]
        for group in groups.prunable
        for part in groups.slices(group)
        if part.role == "out"
    }
    kinds = (nn.modules.conv._ConvNd, nn.Linear, nn.Embedding)
    sites = [name for name in sorted(names) if isinstance(groups.model.get_submodule(name), kinds)]
    stream(groups.model, batches, {Site(name): add for name in sites})
    return {name: total / counts[name] for name, total in sums.items()}
