"""Units in the order in which a least-squares reconstruction can best do without them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlprune.importance.base import ScoringData
from rlprune.importance.magnitude import l1
from rlprune.linear.fits import Fit, Fits, prepare
from rlprune.linear.weights import Consumer
from rlprune.observe.probes import Probed, probe

if TYPE_CHECKING:
    from rlprune.structure import Group, Groups

logger = logging.getLogger(__name__)

_SAMPLES = 256
_WAITING = 64
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
    parts = [
        part
        for part in groups.slices(group)
        if part.role == "in" and part.tensor in fits and fits[part.tensor].consumer.dim == part.dim
    ]
    felt = [part for part in parts if part.tensor in weights]
    readers = [
        _reader(fits[part.tensor], part.index, weights.get(part.tensor)) for part in felt or parts
    ]
    if not readers:
        logger.info("least squares refits no layer that reads %r; ordered by l1", group.name)
        return l1(groups, group, data)
    score = torch.zeros(group.width)
    for place, unit in enumerate(eliminate(readers), start=1):
        score[unit] = place
    return score


class Reader:
    """A layer that reads the units of a group.

    With the columns ``at`` of a unit and ``(M^-1)_at,at = L L^T``, removing it takes ``u u^T`` from
    the inverse, ``u = (M^-1)_:,at L^-T``, and ``u d^T + d u^T`` from ``W^T W``. Both wait until
    there are many of them, because products of large matrices are much faster; a unit's own blocks
    are always up to date.

    Args:
        energy: ``W^T S W`` of its weights with weighted outputs, ``[n, n]`` float64.
        inverse: the inverse of its inputs' second moments, ``[n, n]``.
        columns: of every unit, ``[width, inputs per unit]``.
    """

    def __init__(self, energy: Tensor, inverse: Tensor, columns: Tensor) -> None:
        self._energy, self._inverse, self._columns = energy, inverse, columns
        self._u = self._d = energy.new_empty(len(energy), 0)
        self._left = torch.ones(len(energy), dtype=torch.bool)
        rows, across = columns[:, :, None], columns[:, None, :]
        self._own_energy, self._own_inverse = energy[rows, across], inverse[rows, across]

    def __len__(self) -> int:
        return len(self._columns)

    def errors(self) -> Tensor:
        """Change of the layer's weighted output when one unit goes, ``[width]``."""
        inverse = torch.linalg.inv_ex(self._own_inverse).inverse
        return (inverse * self._own_energy).sum((1, 2))

    def remove(self, unit: int) -> None:
        """Take a unit out: ``W <- W (I - E K^T)`` with ``K = (M^-1)_:u [(M^-1)_uu]^-1``."""
        at = self._columns[unit]
        self._left[at] = False
        inverse = self._inverse[:, at] - self._u @ self._u[at].T
        energy = self._energy[:, at] - self._u @ self._d[at].T - self._d @ self._u[at].T
        root, failed = torch.linalg.cholesky_ex(inverse[at])
        if failed:
            return
        u = torch.linalg.solve_triangular(root, inverse.T, upper=False).T
        c = torch.linalg.solve_triangular(root, energy.T, upper=False).T
        d = c - u @ torch.linalg.solve_triangular(root, c[at], upper=False) / 2
        mine, half = u[self._columns], d[self._columns]
        self._own_inverse -= mine @ mine.mT
        self._own_energy -= mine @ half.mT + half @ mine.mT
        self._u, self._d = torch.cat([self._u, u], 1), torch.cat([self._d, d], 1)

    def settle(self) -> None:
        """Work off what waits, if it is much, and forget the units that are gone."""
        if self._u.shape[1] < _WAITING:
            return
        keep = self._left
        u, d = self._u[keep], self._d[keep]
        cross = u @ d.T
        self._inverse = self._inverse[keep][:, keep] - u @ u.T
        self._energy = self._energy[keep][:, keep] - cross - cross.T
        self._columns = (keep.cumsum(0) - 1).clamp_min(0)[self._columns]
        self._u = self._d = u[:, :0]
        self._left = torch.ones(len(u), dtype=torch.bool)


def eliminate(readers: list[Reader]) -> list[int]:
    """Units from the first to go to the last; what the readers hold is used up."""
    alive = torch.ones(len(readers[0]), dtype=torch.bool)
    order: list[int] = []
    while len(order) < len(alive) - 1:
        errors = torch.stack([reader.errors() for reader in readers]).sum(0)
        unit = int(errors.nan_to_num(torch.inf).masked_fill(~alive, torch.inf).argmin())
        unit = unit if alive[unit] else int(alive.nonzero()[0])
        alive[unit] = False
        order.append(unit)
        for reader in readers:
            reader.remove(unit)
            reader.settle()
    return [*order, *alive.nonzero()[:, 0].tolist()]


def _reader(fit: Fit, index: Tensor, outputs: Tensor | None) -> Reader:
    consumer = fit.consumer
    weight = consumer.matrix(consumer.weight, getattr(consumer.module, "bias", None))
    if outputs is not None:
        weight = weight * outputs.repeat_interleave(len(weight) // len(outputs)).sqrt()[:, None]
    gram = fit.gram.cpu().clone()
    gram.diagonal().add_(
        fit.pull(len(gram)) + 1e-9 * float(gram.diagonal().mean().clamp_min(1e-300))
    )
    inverse = torch.cholesky_inverse(torch.linalg.cholesky_ex(gram).L)
    per_channel = consumer.per_channel
    columns = (index[:, :, None] * per_channel + torch.arange(per_channel)).flatten(1)
    return Reader(weight.T @ weight, inverse, columns)


def _prepared(groups: Groups, data: ScoringData) -> Fits:
    return prepare(groups, data.require("obs"))


def _output_weights(groups: Groups, data: ScoringData) -> dict[str, Tensor]:
    """By weight name: summed squares of the answer's derivatives by every output channel."""
    prepared = data.once("obs moments", lambda: _prepared(groups, data))
    paths = {name.rpartition(".")[0]: name for name in prepared.fits}
    consumers = {path: prepared.fits[name].consumer for path, name in paths.items()}
    sums: dict[str, Tensor] = {}
    try:
        batches = data.require("obs")
        for _, calls in probe(
            groups.model, batches, tuple(paths), samples=_SAMPLES, classes=data.classes
        ):
            for path, found in calls.items():
                for squares in _squares(consumers[path], found):
                    sums[paths[path]] = sums.get(paths[path], 0) + squares
    except RuntimeError as error:
        logger.warning("all outputs count alike: the network has no derivatives (%s)", error)
        return {}
    return {name: value for name, value in sums.items() if float(value.sum()) > 0}


def _squares(consumer: Consumer, calls: list[Probed]) -> Iterator[Tensor]:
    """Of every call the summed squares of the gradients by output channel."""
    channels = 1 if isinstance(consumer.module, _Conv) else -1
    for call in calls:
        rows = call.gradient.float().movedim(channels, -1)
        if rows.shape[-1] == consumer.weight.shape[1 - consumer.dim]:
            yield rows.flatten(0, -2).square().sum(0).cpu().double()
