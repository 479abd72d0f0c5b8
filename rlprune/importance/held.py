"""Criteria by what units hold: how well another says the same, what they write, which class."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rlprune.errors import DataError
from rlprune.importance.base import ScoringData, combine
from rlprune.importance.magnitude import l1
from rlprune.linear.fits import Fit, prepare
from rlprune.observe import Observation, Sink, Site, stream
from rlprune.observe.rows import position_mask, units_last

if TYPE_CHECKING:
    from rlprune.structure import Group, Groups, Slice

logger = logging.getLogger(__name__)


def redundancy(groups: Groups, group: Group, data: ScoringData) -> Tensor:
    r"""Order in which units can best be merged into one other unit, by least squares.

    A layer with weights ``w`` reads the units ``x``. With unit i as ``t x_j + c``, ``t`` and ``c``
    by least squares, its output changes by

    .. math:: |w_i|^2 \, \mathrm{Var}(x_i) \, (1 - r_{ij}^2)

    The unit with the least change goes first, its weights times ``t`` are added to those of its
    partner, and so on: the clusters of an agglomerative clustering by ``1 - r^2``, weighted by what
    the next layers make of the units, each kept in its heaviest member. Give it with the
    compensation "cluster", which merges the same way. Where the reading layer has no bias, nothing
    can take up ``c``: moments about zero take the place of variance and correlation.

    Groups that no layer reads which least squares can refit are ordered by :func:`l1`.

    Returns:
        ``[width]``: 1 for the unit that would be merged first, ``width`` for the last one.

    Raises:
        DataError: There is no calibration data.
    """
    parts = _readers(groups, group, data, "redundancy")
    if not parts:
        return l1(groups, group, data)
    order = _merge([_Reader(fit, part.index) for part, fit in parts])
    score = torch.zeros(group.width)
    score[torch.tensor(order)] = torch.arange(1.0, group.width + 1)
    return score


def memory(groups: Groups, group: Group, data: ScoringData) -> Tensor:
    """What a unit writes: the length of its values times the root mean square of its coefficient.

    For a feed-forward network as key-value memory (Geva et al., EMNLP 2021); of any other group
    alike. Groups that no layer reads which least squares can refit are ordered by :func:`l1`.

    Raises:
        DataError: There is no calibration data.
    """
    parts = _readers(groups, group, data, "memory")
    if not parts:
        return l1(groups, group, data)
    scores = []
    for part, fit in parts:
        reader = _Reader(fit, part.index, centred=False)
        scores.append((reader.lengths * reader.own).sum(1).sqrt())
    return combine(scores)


def concept(groups: Groups, group: Group, data: ScoringData) -> Tensor:
    """How far apart a unit's means by class lie: ``sum over pairs |mu_a - mu_b| / sigma``.

    The probeless ranking (Antverg, Belinkov, ICLR 2022) on standardised units. Classes are the
    labels of the calibration data: one for each sample, or one for each token (-100 is left out).
    Groups whose units no linear layer or convolution reads are ordered by :func:`l1`.

    Raises:
        DataError: There is no labelled calibration data, or only one class.
    """
    found = data.once("concept", lambda: _separations(groups, data))
    scores = [
        found[part.tensor][part.index.cpu()].amax(1)
        for part in groups.slices(group)
        if part.role == "in" and part.tensor in found
    ]
    if not scores:
        logger.info("no layer shows the units of %r; ordered by l1", group.name)
        return l1(groups, group, data)
    return combine(scores)


def separation(means: np.ndarray) -> np.ndarray:
    """Sum over pairs of classes of ``|mu_a - mu_b|``, ``[neurons]``.

    Args:
        means: ``[classes, neurons]``.
    """
    ascending = np.sort(means, axis=0)
    below = np.arange(1, len(means))[:, None]
    return np.asarray((np.diff(ascending, axis=0) * below * (len(means) - below)).sum(0))


def _readers(groups: Groups, group: Group, data: ScoringData, name: str) -> list[tuple[Slice, Fit]]:
    fits = data.once("obs moments", lambda: prepare(groups, data.require(name))).fits
    parts = [
        (part, fits[part.tensor])
        for part in groups.slices(group)
        if part.role == "in" and part.tensor in fits and fits[part.tensor].consumer.dim == part.dim
    ]
    if not parts:
        logger.info("least squares refits no layer that reads %r; ordered by l1", group.name)
    return parts


class _Reader:
    """A layer that reads units: their second moments and the weights it reads them with.

    Attributes:
        alike: correlation of every two units, column by column, ``[columns, width, width]``.
        own: variance of every column, ``[width, columns]``.
        lengths: squared length of its weights, ``[width, columns]``.
    """

    def __init__(self, fit: Fit, index: Tensor, centred: bool = True) -> None:
        consumer = fit.consumer
        matrix = consumer.matrix(consumer.weight, getattr(consumer.module, "bias", None))
        moments = fit.gram.cpu()
        if consumer.intercept and centred:
            moments = moments - torch.outer(moments[:, -1], moments[-1])
        per = consumer.per_channel
        columns = (index.cpu()[:, :, None] * per + torch.arange(per)).flatten(1)
        self.own = moments.diagonal()[columns].clamp_min(0)
        self.weights = matrix.T[columns]
        at = columns.T
        block = moments[at[:, :, None], at[:, None, :]]
        scale = self.own.T.sqrt().clamp_min(1e-150)
        self.alike = (block / scale[:, :, None] / scale[:, None, :]).clamp(-1, 1)
        self.scale = scale

    @property
    def lengths(self) -> Tensor:
        return self.weights.square().sum(2)

    def errors(self) -> Tensor:
        """What the output changes by if a unit is merged into another, ``[width, width]``."""
        mass = (self.lengths * self.own).T
        return (mass[:, :, None] * (1 - self.alike.square())).sum(0)

    def error_row(self, unit: int) -> Tensor:
        """A row of `errors`, ``[width]``."""
        mass = (self.lengths[unit] * self.own[unit])[:, None]
        return (mass * (1 - self.alike[:, unit].square())).sum(0)

    def absorb(self, unit: int, partner: int) -> None:
        """Add the weights of a unit to those of its partner."""
        ratio = self.alike[:, unit, partner] * self.scale[:, unit] / self.scale[:, partner]
        self.weights[partner] += ratio[:, None] * self.weights[unit]


def _merge(readers: list[_Reader]) -> list[int]:
    """Units from the first to be merged to the last; what the readers hold is used up."""
    errors = torch.stack([reader.errors() for reader in readers]).sum(0)
    errors.fill_diagonal_(torch.inf)
    width = len(errors)
    best, partner = errors.min(1) if width > 1 else (errors[:, 0], errors[:, 0].long())
    order: list[int] = []
    while len(order) < width - 1:
        unit = int(best.argmin())
        into = int(partner[unit])
        order.append(unit)
        for reader in readers:
            reader.absorb(unit, into)
        errors[:, unit] = torch.inf
        errors[unit] = best[unit] = torch.inf
        fresh = torch.stack([reader.error_row(into) for reader in readers]).sum(0)
        fresh[order] = torch.inf
        fresh[into] = torch.inf
        errors[into] = fresh
        again = torch.nonzero((partner == unit) & best.isfinite())[:, 0]
        for row in {*again.tolist(), into}:
            best[row], partner[row] = errors[row].min(0)
    left = set(range(width)) - set(order)
    return [*order, *left]


def _separations(groups: Groups, data: ScoringData) -> dict[str, Tensor]:
    """By weight name how far apart the classes' means of every position it reads lie."""
    batches = data.require("concept", labels=True)
    names = {
        part.tensor
        for group in groups.prunable
        for part in groups.slices(group)
        if part.role == "in" and part.tensor.endswith(".weight")
    }
    totals: dict[str, _ByClass] = {}
    labels: list[Tensor] = []

    def sink(name: str) -> Sink:
        def look(seen: Observation) -> None:
            value = units_last(seen).float()
            mask = position_mask(seen)
            totals.setdefault(name, _ByClass()).add(value, labels[0], mask)

        return look

    paths = dict(groups.model.named_modules(remove_duplicate=False))
    sinks: dict[str | Site, Sink] = {
        Site(name.rpartition(".")[0], "input"): sink(name)
        for name in sorted(names)
        if name.rpartition(".")[0] in paths
    }

    def told() -> object:
        for inputs, own in batches:
            assert own is not None
            labels[:] = [own]
            yield inputs, own

    stream(groups.model, told(), sinks)  # type: ignore[arg-type]
    return {name: found.separation() for name, found in totals.items()}


class _ByClass:
    """Sums by class of what a layer reads."""

    def __init__(self) -> None:
        self.sums: dict[int, Tensor] = {}
        self.counts: dict[int, int] = {}
        self.squares: Tensor | float = 0.0

    def add(self, value: Tensor, labels: Tensor, mask: Tensor | None) -> None:
        """Take in ``[samples, ..., width]`` with labels of the samples or of the positions."""
        if labels.shape == value.shape[:-1]:
            rows, own = value.flatten(0, -2), labels.flatten()
            if mask is not None:
                rows, own = rows[mask.flatten()], own[mask.flatten()]
        elif len(labels) == len(value) and labels.ndim == 1:
            weight = torch.ones(value.shape[:-1]) if mask is None else mask.float()
            dims = tuple(range(1, value.ndim - 1))
            total = weight.sum(dims, keepdim=True).clamp_min(1) if dims else weight
            rows = (value * (weight / total)[..., None]).sum(dims) if dims else value
            own = labels
        else:
            return
        rows, own = rows[own != -100].double().cpu(), own[own != -100].cpu()
        for label in own.unique().tolist():
            part = rows[own == label]
            self.sums[label] = self.sums.get(label, torch.zeros(1)) + part.sum(0)
            self.counts[label] = self.counts.get(label, 0) + len(part)
        self.squares = self.squares + rows.square().sum(0)

    def separation(self) -> Tensor:
        """``[width]`` float64."""
        if len(self.sums) < 2:
            raise DataError(
                "importance 'concept' needs two classes of labels that fit what layers read"
            )
        count = sum(self.counts.values())
        mean = torch.stack(list(self.sums.values())).sum(0) / count
        deviation = (self.squares / count - mean**2).clamp_min(1e-12).sqrt()
        means = torch.stack([self.sums[label] / self.counts[label] for label in sorted(self.sums)])
        return torch.from_numpy(separation((means / deviation).numpy()))
