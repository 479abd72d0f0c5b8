"""Mean activation criterion."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlprune.importance.base import ScoringData, combine, owner
from rlprune.importance.magnitude import l2
from rlprune.inputs import call
from rlprune.modes import evaluating

if TYPE_CHECKING:
    from rlprune.structure import Group, Groups

logger = logging.getLogger(__name__)

_CONVOLUTIONS = nn.modules.conv._ConvNd


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
    model = groups.model
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def watch(name: str, dim: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            rows = output.detach().movedim(dim, 0).flatten(1).abs().double()
            sums[name] = sums.get(name, 0) + rows.sum(1).cpu()
            counts[name] = counts.get(name, 0) + rows.shape[1]

        return hook

    handles = []
    names = {
        part.tensor.rpartition(".")[0]
        for group in groups.prunable
        for part in groups.slices(group)
        if part.role == "out"
    }
    for name in sorted(names):
        module = owner(model, f"{name}.weight")
        if isinstance(module, _CONVOLUTIONS):
            dim = -1 - len(module.kernel_size)
        elif isinstance(module, (nn.Linear, nn.Embedding)):
            dim = -1
        else:
            continue
        handles.append(module.register_forward_hook(watch(name, dim)))
    try:
        with evaluating(model), torch.no_grad():
            for inputs, _ in batches:
                call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: total / counts[name] for name, total in sums.items()}
