"""Units in the order in which a least-squares reconstruction can best do without them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlprune.compensation.least_squares import Fit, Prepared, prepare
from rlprune.importance.base import ScoringData
from rlprune.importance.magnitude import l1
from rlprune.probes import probe

if TYPE_CHECKING:
    from rlprune.structure import Group, Groups

logger = logging.getLogger(__name__)

_SAMPLES = 256
_Conv = nn.modules.conv._ConvNd


def obs(groups: Groups, group: Group, data: ScoringData) -> Tensor:
    r"""Order of backward elimination with exact reconstruction (structured Optimal Brain Surgeon).

    A layer with weights ``W`` reads the group's units in an input with second moments ``M``. When
    unit ``u`` goes and the remaining inputs are refitted by least squares, its output changes by

    .. math:: \epsilon_u = \mathrm{tr}\,\big(W_u\,[(M^{-1})_{uu}]^{-1}\,W_u^T\big)

    (Hassibi and Stork, NeurIPS 1992, with a unit's whole block of inputs in place of one weight;
    Kurtic et al., ZipLM, NeurIPS 2023, eq. 3), outputs weighted by how much the network's answer
    depends on them, summed over all layers that read the units. The unit with the least goes
    first, ``W`` and :math:`M^{-1}` are brought up to date, and so on: of two units that can stand
    in for each other one goes early, and then the other one is worth more. Moments and ridge are
    those of :class:`rlprune.compensation.LeastSquares`.

    Groups that no layer reads which least squares can refit are ordered by :func:`l1`.

    Returns:
        ``[width]``: 1 for the unit that would be removed first, ``width`` for the last one.

    Raises:
        DataError: There is no calibration data.
    """
    fits = data.once("obs moments", lambda: _prepared(groups, data)).fits
    weights: dict[str, Tensor] = data.once("obs outputs", lambda: _output_weights(groups, data))
    readers = [
        _reader(fits[part.tensor], part.index, weights.get(part.tensor))
        for part in groups.slices(group)
        if part.role == "in" and part.tensor in fits and fits[part.tensor].consumer.dim == part.dim
    ]
    if not readers:
        logger.info("least squares refits no layer that reads %r; ordered by l1", group.name)
        return l1(groups, group, data)
    score = torch.zeros(group.width)
    for place, unit in enumerate(eliminate(readers), start=1):
        score[unit] = place
    return score


@dataclass
class Reader:
    """A layer that reads the units of a group.

    Attributes:
        energy: ``W^T S W`` of its weights with weighted outputs, ``[n, n]`` float64.
        inverse: the inverse of its inputs' second moments, ``[n, n]``.
        columns: of every unit, ``[width, inputs per unit]``.
    """

    energy: Tensor
    inverse: Tensor
    columns: Tensor


def eliminate(readers: list[Reader]) -> list[int]:
    """Units from the first to go to the last; what the readers hold is used up."""
    width = len(readers[0].columns)
    alive = torch.ones(width, dtype=torch.bool)
    order: list[int] = []
    while len(order) < width - 1:
        left = alive.nonzero()[:, 0]
        errors = sum(_errors(reader, left) for reader in readers)
        assert isinstance(errors, Tensor)
        unit = int(left[errors.nan_to_num(torch.inf).argmin()])
        for reader in readers:
            _remove(reader, unit)
        alive[unit] = False
        order.append(unit)
    return [*order, *alive.nonzero()[:, 0].tolist()]


def _errors(reader: Reader, units: Tensor) -> Tensor:
    """Change of the layer's weighted output when one unit goes, ``[len(units)]``."""
    at = reader.columns[units]
    rows, columns = at[:, :, None], at[:, None, :]
    block, energy = reader.inverse[rows, columns], reader.energy[rows, columns]
    if at.shape[1] == 1:
        return (energy / block)[:, 0, 0]
    return (torch.linalg.inv_ex(block).inverse * energy).sum((1, 2))


def _remove(reader: Reader, unit: int) -> None:
    """Take a unit out: ``W <- W (I - E K^T)`` with ``K = (M^-1)_:u [(M^-1)_uu]^-1``."""
    at = reader.columns[unit]
    gain = reader.inverse[:, at] @ torch.linalg.inv_ex(reader.inverse[at][:, at]).inverse
    across = reader.energy[:, at] @ gain.T
    reader.energy += gain @ reader.energy[at][:, at] @ gain.T - across - across.T
    reader.inverse -= gain @ reader.inverse[at]


def _reader(fit: Fit, index: Tensor, outputs: Tensor | None) -> Reader:
    consumer = fit.consumer
    weight = consumer.matrix(consumer.weight, getattr(consumer.module, "bias", None))
    if outputs is not None:
        scale = outputs.double().cpu()
        weight = weight * scale.repeat_interleave(len(weight) // len(scale)).sqrt()[:, None]
    gram = fit.gram.cpu().clone()
    gram.diagonal().add_(fit.ridge + 1e-9 * float(gram.diagonal().mean().clamp_min(1e-300)))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky_ex(gram).L)
    per_channel = consumer.per_channel
    columns = (index[:, :, None] * per_channel + torch.arange(per_channel)).flatten(1)
    return Reader(weight.T @ weight, inverse, columns)


def _prepared(groups: Groups, data: ScoringData) -> Prepared:
    return prepare(groups, data.require("obs"))


def _output_weights(groups: Groups, data: ScoringData) -> dict[str, Tensor]:
    """By weight name: mean squared derivative of the answer by every output channel."""
    prepared = data.once("obs moments", lambda: _prepared(groups, data))
    paths = {name.rpartition(".")[0]: name for name in prepared.fits}
    consumers = {path: prepared.fits[name].consumer for path, name in paths.items()}
    sums: dict[str, Tensor] = {}
    for _, calls in probe(groups.model, data.require("obs"), tuple(paths), samples=_SAMPLES):
        for path, found in calls.items():
            outputs = consumers[path].weight.shape[1 - consumers[path].dim]
            for call in found:
                at = 1 if isinstance(consumers[path].module, _Conv) else -1
                squares = call.gradient.double().movedim(at, -1).square().flatten(0, -2).sum(0)
                if len(squares) == outputs:
                    sums[paths[path]] = sums.get(paths[path], 0) + squares
    return {name: value for name, value in sums.items() if float(value.sum()) > 0}
