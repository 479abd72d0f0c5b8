"""Fits: what refitting the readers of removed units needs, computed once per network and data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from rlprune.linear.moments import InputMoments, SplitMoments
from rlprune.linear.solve import GRID, solve
from rlprune.linear.weights import Consumer

if TYPE_CHECKING:
    from rlprune.batches import Batch
    from rlprune.structure import Groups

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """What refitting one consumer needs, whatever the plan.

    Attributes:
        consumer: the weight.
        gram: ``E[x x^T]``, [n, n] float64.
        cross: ``E[x (W x)^T]`` with the dense weight W, [n, outputs].
        ridge: pull toward the current weights, in the units of ``gram``.
    """

    consumer: Consumer
    gram: Tensor
    cross: Tensor
    ridge: float

    def columns(self, kept: Tensor) -> Tensor:
        """Columns of the consumer's matrix that read the positions ``kept``, and its intercept."""
        per_channel = self.consumer.per_channel
        at = (kept[:, None] * per_channel + torch.arange(per_channel)).reshape(-1)
        if self.consumer.intercept:
            at = torch.cat([at, torch.tensor([self.gram.shape[0] - 1])])
        return at

    def pull(self, count: int) -> Tensor:
        """The ridge of ``count`` columns, none on the intercept."""
        pull = torch.full((count,), self.ridge, dtype=self.gram.dtype)
        if self.consumer.intercept:
            pull[-1] = 0
        return pull


@dataclass(frozen=True)
class Fits:
    """The fits of a network.

    Attributes:
        key: what they were computed from.
        samples: the calibration samples; held, so that nothing else takes their address.
        fits: by weight name.
        left_out: the weights that are not refitted and why.
    """

    key: tuple[Any, ...]
    samples: tuple[Tensor, ...]
    fits: dict[str, Fit]
    left_out: dict[str, str]


_PREPARED: WeakKeyDictionary[Groups, dict[tuple[Any, ...], Fits]] = WeakKeyDictionary()


def prepare(
    groups: Groups,
    batches: Sequence[Batch],
    *,
    ridge: float | None = None,
    patch_limit: int = 1200,
    rows: int = 16384,
) -> Fits:
    """The fits of a network; computed once for the same network, calibration data and options.

    Args:
        groups: the dense network's groups.
        batches: calibration batches.
        ridge: see :class:`rlprune.compensation.LeastSquares`.
        patch_limit: likewise.
        rows: likewise.

    Raises:
        DataError: there is no batch.
    """
    samples = [x for x in tree_leaves([inputs for inputs, _ in batches]) if isinstance(x, Tensor)]
    key = tuple(
        (x.data_ptr(), tuple(x.shape), 0 if x.is_inference() else x._version) for x in samples
    )
    by_options = _PREPARED.setdefault(groups, {})
    options = (ridge, patch_limit, rows)
    known = by_options.get(options)
    if known is None or known.key != key:
        moments = InputMoments(groups, batches, patch_limit=patch_limit, rows=rows)
        for name in [n for n, m in moments.found.items() if not m.finite]:
            moments.left_out[name] = "its inputs are not finite"
        for name, reason in moments.left_out.items():
            logger.info("least squares leaves '%s' as it is: %s", name, reason)
        fits = {name: _fit(m, ridge) for name, m in moments.found.items() if m.finite}
        known = Fits(key, tuple(samples), fits, moments.left_out)
        by_options[options] = known
    return known


def _fit(moments: SplitMoments, ridge: float | None) -> Fit:
    consumer = moments.consumer
    weight = consumer.matrix(consumer.weight, getattr(consumer.module, "bias", None))
    gram = moments.mean(0, 1)
    scale = float(gram.diagonal().mean().clamp_min(1e-300))
    if ridge is None:
        ridge = choose_ridge(moments, weight) / scale
    return Fit(consumer, gram, gram @ weight.T, ridge * scale)


def choose_ridge(moments: SplitMoments, weight: Tensor) -> float:
    """The ridge that predicts one half of the samples best when fitted on the other.

    Half of the units, evenly spaced, stand for those a plan removes. The optimum falls as one over
    the number of samples, so half of what the halves prefer is right for all of them.

    Args:
        moments: of a consumer's inputs.
        weight: its matrix, [outputs, n].

    Returns:
        The ridge in the units of the moments.
    """
    both = [moments.mean(half) for half in (0, 1)]
    scale = float(moments.mean(0, 1).diagonal().mean().clamp_min(1e-300))
    if not all(moments.rows):
        return scale
    size = weight.shape[1]
    channel = torch.arange(size) // moments.consumer.per_channel
    keep = channel % 2 == 0
    if moments.consumer.intercept:
        keep[-1] = True
    kept, gone = keep.nonzero().reshape(-1), (~keep).nonzero().reshape(-1)
    if not len(gone):
        return GRID[0] * scale
    ridges = torch.tensor(GRID, dtype=torch.float64) * scale
    losses = torch.zeros_like(ridges)
    for train, test in (both, both[::-1]):
        values, vectors = torch.linalg.eigh(train[kept][:, kept])
        target = vectors.T @ (train[kept][:, gone] @ weight[:, gone].T)
        wanted = vectors.T @ (test[kept][:, gone] @ weight[:, gone].T)
        inner = vectors.T @ test[kept][:, kept] @ vectors
        for k, ridge in enumerate(ridges):
            change = target / (values.clamp_min(0) + ridge)[:, None]
            losses[k] += ((inner @ change) * change).sum() - 2 * (change * wanted).sum()
    return float(ridges[losses.argmin()]) / 2


def refit(fit: Fit, kept: Tensor, prior: Tensor, outputs: Tensor | None = None) -> Tensor:
    """A consumer's weights when only some of its inputs are left.

    Args:
        fit: the consumer.
        kept: positions kept along the dimension it reads.
        prior: its matrix before, [outputs kept, inputs kept].
        outputs: positions kept along the other dimension; None keeps all.

    Returns:
        The refitted matrix, of the prior's shape.
    """
    consumer = fit.consumer
    at = fit.columns(kept)
    cross = fit.cross.index_select(0, at)
    if outputs is not None:
        per_output = fit.cross.shape[1] // consumer.weight.shape[1 - consumer.dim]
        rows = (outputs[:, None] * per_output + torch.arange(per_output)).reshape(-1)
        cross = cross.index_select(1, rows)
    gram = fit.gram.index_select(0, at).index_select(1, at)
    return solve(gram, cross, fit.pull(len(at)), prior.T).T
