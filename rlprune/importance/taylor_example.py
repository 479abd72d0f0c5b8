"""First-order Taylor criteria example by example: with labels, and without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call

from rlprune.batches import Batch
from rlprune.importance.base import ScoringData, unit_rows
from rlprune.inputs import batch_size, map_tensors
from rlprune.modes import evaluating

if TYPE_CHECKING:
    from rlprune.structure import Group, Groups, Slice


def taylor_example(groups: Groups, group: Group, data: ScoringData) -> Tensor:
    r"""Change of an example's loss when a unit vanishes, to first order (Michel et al. 2019).

    .. math:: I_u = \frac{1}{N} \sum_n \bigl| \sum_{s \in u} w_s \, g_{s,n} \bigr|

    over the parameters that produce the unit, with the gradient of every example's own loss: the
    score does not change with the batch size, unlike that of ``taylor``.

    Raises:
        DataError: There is no labelled calibration data.
    """
    return _labelled("taylor_example", groups, group, data, torch.abs)


def fisher(groups: Groups, group: Group, data: ScoringData) -> Tensor:
    r"""Diagonal of the empirical Fisher matrix of units' masks (Kwon et al., NeurIPS 2022, eq. 6).

    .. math:: I_u = \frac{1}{N} \sum_n \Bigl( \sum_{s \in u} w_s \, g_{s,n} \Bigr)^2

    as `taylor_example`, squared.

    Raises:
        DataError: There is no labelled calibration data.
    """
    return _labelled("fisher", groups, group, data, torch.square)


def taylor_kl(groups: Groups, group: Group, data: ScoringData) -> Tensor:
    r"""How far the network's own answers move when a unit vanishes; needs no labels.

    .. math:: I_u = \frac{1}{2N} \sum_n \Bigl( \sum_{s \in u} w_s \, g_{s,n} \Bigr)^2, \quad
              g_n = -\nabla \log p(y_n \mid x_n), \; y_n \sim p(\cdot \mid x_n)

    At the network itself the gradient of its divergence from its own answers is zero; this is the
    quadratic term, with the Fisher matrix from one drawn label for each row of an answer
    (Martens 2020, section 5). Networks without classes get normal noise on their answers.

    Raises:
        DataError: There is no calibration data.
    """
    batches = data.require("taylor_kl")

    def loss(model: torch.nn.Module, example: Batch) -> Tensor:
        answers = data.answers(model, example[0])
        if not data.classes:
            noise = torch.randn(answers.shape, generator=data.generator)
            return (answers * noise.to(answers)).sum()
        logs = torch.log_softmax(answers, dim=1)
        drawn = torch.multinomial(logs.detach().exp().cpu(), 1, generator=data.generator)
        return -logs.gather(1, drawn.to(logs.device)).sum()

    scores = data.once(
        "taylor_kl", lambda: _by_example(groups, batches, loss, lambda change: change.square() / 2)
    )
    return scores[group.name].float()


def _labelled(
    name: str,
    groups: Groups,
    group: Group,
    data: ScoringData,
    measure: Callable[[Tensor], Tensor],
) -> Tensor:
    """Scores ``[width]`` of a group by the losses of labelled examples."""
    batches = data.require(name, labels=True)

    def loss(model: torch.nn.Module, example: Batch) -> Tensor:
        inputs, labels = example
        assert labels is not None
        return data.loss(model, inputs, labels)

    scores = data.once(name, lambda: _by_example(groups, batches, loss, measure))
    return scores[group.name].float()


def _by_example(
    groups: Groups,
    batches: list[Batch],
    loss: Callable[[torch.nn.Module, Batch], Tensor],
    measure: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Mean over examples of a measure of ``sum(w * g)`` of every unit, by group, [width] each."""
    model = groups.model
    named = dict(model.named_parameters(remove_duplicate=False))
    leaves = {id(value): value.detach().clone() for value in named.values()}
    parts = {group.name: _producing(groups, group, named) for group in groups.prunable}
    used = {id(named[part.tensor]) for chosen in parts.values() for part in chosen}
    weights = [leaves[key].requires_grad_() for key in used]
    sums = {g.name: torch.zeros(g.width, dtype=torch.float64) for g in groups.prunable}
    count = 0

    class Forward(torch.nn.Module):
        def forward(self, *args: object, **kwargs: object) -> object:
            tensors = {name: leaves[id(value)] for name, value in named.items()}
            return functional_call(model, tensors, args, kwargs)

    with evaluating(model), torch.enable_grad():
        for batch in batches:
            for example in _examples(batch):
                found = torch.autograd.grad(loss(Forward(), example), weights, allow_unused=True)
                products = {
                    key: weight.detach() * gradient
                    for key, weight, gradient in zip(used, weights, found, strict=True)
                    if gradient is not None
                }
                for group in groups.prunable:
                    change = torch.zeros(group.width, dtype=torch.float64)
                    for part in parts[group.name]:
                        product = products.get(id(named[part.tensor]))
                        if product is not None:
                            rows = unit_rows(product, part)
                            change += rows.sum(1, dtype=torch.float64).cpu()
                    sums[group.name] += measure(change)
                count += 1
    return {name: total / max(count, 1) for name, total in sums.items()}


def _producing(groups: Groups, group: Group, named: Mapping[str, Tensor]) -> list[Slice]:
    """Slices of parameters that make a group's units, or that read them where nothing does."""
    parts = [part for part in groups.slices(group) if part.tensor in named]
    return [part for part in parts if part.role != "in"] or parts


def _examples(batch: Batch) -> list[Batch]:
    """A batch one example at a time."""
    inputs, labels = batch
    size = batch_size(inputs)

    def one(at: int) -> Batch:
        def pick(tensor: Tensor) -> Tensor:
            return tensor[at : at + 1] if tensor.dim() and tensor.shape[0] == size else tensor

        return map_tensors(inputs, pick), None if labels is None else labels[at : at + 1]

    return [one(at) for at in range(size)]
