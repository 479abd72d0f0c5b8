"""First-order Taylor criterion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call

from rlprune.importance.base import ScoringData, unit_rows
from rlprune.modes import evaluating

if TYPE_CHECKING:
    from rlprune.structure import Group, Groups


def taylor(groups: Groups, group: Group, data: ScoringData) -> Tensor:
    r"""Squared change of the loss when the unit's parameters vanish (Molchanov et al., CVPR 2019).

    .. math:: I_u = \frac{1}{B} \sum_b \sum_{s \in u} (w_s \, g_{s,b})^2

    over the parameters that produce the unit or are tied to it (weights, biases, normalisation),
    with the gradient ``g`` of every batch's mean loss in eval mode. All parts are in units of the
    loss, so slices are added up as they are.

    Raises:
        DataError: There is no labelled calibration data.
    """
    products = data.once("taylor", lambda: squared_products(groups, data))
    parts = [part for part in groups.slices(group) if part.tensor in products]
    producing = [part for part in parts if part.role != "in"] or parts
    score = torch.zeros(group.width, dtype=torch.float64)
    for part in producing:
        score += unit_rows(products[part.tensor], part).sum(1).cpu()
    return score.float()


def squared_products(groups: Groups, data: ScoringData) -> dict[str, Tensor]:
    """Mean over batches of ``(weight * gradient) ** 2`` for every parameter.

    Args:
        groups: The groups; their network is evaluated on detached copies of its parameters.
        data: Labelled batches and the loss.

    Returns:
        State-dict name -> tensor of the parameter's shape, float64. A parameter that several
        modules share appears under each of its names.
    """
    batches = data.require("taylor", labels=True)
    model = groups.model
    named = dict(model.named_parameters(remove_duplicate=False))
    leaves = {id(value): value.detach().clone().requires_grad_() for value in named.values()}
    weights = list(leaves.values())
    sums = [torch.zeros_like(weight, dtype=torch.float64) for weight in weights]

    class Forward(torch.nn.Module):
        def forward(self, *args: object, **kwargs: object) -> object:
            tensors = {name: leaves[id(value)] for name, value in named.items()}
            return functional_call(model, tensors, args, kwargs)

    with evaluating(model), torch.enable_grad():
        for inputs, labels in batches:
            assert labels is not None
            loss = data.loss(Forward(), inputs, labels)
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            for total, weight, gradient in zip(sums, weights, gradients, strict=True):
                if gradient is not None:
                    total += (weight.detach().double() * gradient.double()) ** 2
    means = {key: total / len(batches) for key, total in zip(leaves, sums, strict=True)}
    return {name: means[id(value)] for name, value in named.items()}
