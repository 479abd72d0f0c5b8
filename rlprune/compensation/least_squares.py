"""Least-squares reconstruction: surviving weights take over what removed inputs contributed."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from rlprune.compaction.slicing import Slicer
from rlprune.compensation.context import Context
from rlprune.compensation.moments import Consumer, InputMoments, Moments
from rlprune.errors import ConfigError

if TYPE_CHECKING:
    from rlprune.batches import Batch
    from rlprune.structure import Groups

logger = logging.getLogger(__name__)

GRID = tuple(10 ** (k / 2) for k in range(-12, 5))
"""Ridges that cross-validation tries, relative to the mean square of an input."""


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
class Prepared:
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


_PREPARED: WeakKeyDictionary[Groups, dict[tuple[Any, ...], Prepared]] = WeakKeyDictionary()


class LeastSquares:
    r"""Refit every consumer of removed units so that its output stays what it was.

    With the dense input ``x`` of a linear layer or convolution (whole patches where affordable, a 1
    appended where there is a bias), its second moments ``M = E[x x^T]``, kept entries ``k`` and
    current weights ``W0``, the refitted weights minimise
    ``E ||W x - W' x_k||^2 + r ||W' - W0||^2``:

    .. math:: W'^T = W_0^T + (M_{kk} + rI)^{-1} (M_{k\cdot} W^T - M_{kk} W_0^T)

    (He, Zhang, Sun, ICCV 2017, eq. 3, with a ridge toward ``W0`` instead of zero). The moments come
    from one pass of the dense network, so a plan costs one linear solve per layer and no data.
    ``W0`` is what earlier methods left: after "merge", scarce data shrinks toward merging.

    Args:
        ridge: ``r`` relative to the mean square of the inputs; None chooses it for every layer by
            two-fold cross-validation over the calibration samples, with half of the units removed.
        patch_limit: 2-D convolutions are fitted on whole patches up to this many entries (channels
            times kernel positions), above on single positions.
        rows: rows sampled per layer over all calibration samples.

    Attributes:
        left_out: after `prepare`, the weights that are not refitted and why.

    Raises:
        ConfigError: ``ridge`` is negative.
    """

    def __init__(
        self, ridge: float | None = None, patch_limit: int = 1200, rows: int = 16384
    ) -> None:
        if ridge is not None and ridge < 0:
            raise ConfigError(f"least_squares: ridge is {ridge}; it must be zero or positive")
        if rows < 1:
            raise ConfigError(f"least_squares: rows is {rows}; it must be at least 1")
        self.ridge, self.patch_limit, self.rows = ridge, patch_limit, rows
        self.left_out: dict[str, str] = {}
        self._slicers: WeakKeyDictionary[Groups, Slicer] = WeakKeyDictionary()

    def prepare(self, context: Context) -> Prepared:
        """Moments of the dense network; computed once per network and calibration data.

        Raises:
            DataError: there is no calibration data.
        """
        known = prepare(
            context.groups,
            context.batches,
            ridge=self.ridge,
            patch_limit=self.patch_limit,
            rows=self.rows,
        )
        self.left_out = known.left_out
        return known

    def apply(self, context: Context) -> None:
        """Refit the consumers of ``context.module`` in place.

        Raises:
            DataError: there is no calibration data.
        """
        prepared = self.prepare(context)
        if context.groups not in self._slicers:
            self._slicers[context.groups] = Slicer(context.groups)
        cuts = self._slicers[context.groups].kept_by_tensor(context.plan)
        for name, fit in prepared.fits.items():
            cut = cuts.get(name, {})
            kept = cut.get(fit.consumer.dim)
            if kept is not None:
                _refit(context, fit, kept, cut.get(1 - fit.consumer.dim))


def prepare(
    groups: Groups,
    batches: Sequence[Batch],
    *,
    ridge: float | None = None,
    patch_limit: int = 1200,
    rows: int = 16384,
) -> Prepared:
    """The fits of a network; computed once for the same network, calibration data and options.

    Args:
        groups: the dense network's groups.
        batches: calibration batches.
        ridge: see :class:`LeastSquares`.
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
            logger.info("least_squares leaves '%s' as it is: %s", name, reason)
        fits = {name: _fit(m, ridge) for name, m in moments.found.items() if m.finite}
        known = Prepared(key, tuple(samples), fits, moments.left_out)
        by_options[options] = known
    return known


def _fit(moments: Moments, ridge: float | None) -> Fit:
    consumer = moments.consumer
    weight = consumer.matrix(consumer.weight, getattr(consumer.module, "bias", None))
    gram = moments.mean(0, 1)
    scale = float(gram.diagonal().mean().clamp_min(1e-300))
    if ridge is None:
        ridge = choose_ridge(moments, weight) / scale
    return Fit(consumer, gram, gram @ weight.T, ridge * scale)


def choose_ridge(moments: Moments, weight: Tensor) -> float:
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


def _refit(context: Context, fit: Fit, kept: Tensor, outputs: Tensor | None) -> None:
    consumer = fit.consumer
    module = context.module.get_submodule(consumer.name.rpartition(".")[0])
    small = module.get_parameter("weight")
    bias = getattr(module, "bias", None)
    fitted = refit(fit, kept, consumer.matrix(small, bias), outputs)
    weight, shift = consumer.unpack(fitted, small)
    with torch.no_grad():
        small.copy_(weight)
        if shift is not None and bias is not None:
            bias.copy_(shift)


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


def solve(gram: Tensor, right: Tensor, pull: Tensor, prior: Tensor) -> Tensor:
    """Solve ``(gram + diag(pull)) x = right + diag(pull) prior``.

    Args:
        gram: [n, n] float64, positive semi-definite.
        right: [n, m].
        pull: [n], zero or positive.
        prior: [n, m].

    Returns:
        x, [n, m]. Where the matrix is singular the pull grows until it is not; where nothing is
        finite x is the prior.
    """
    scale = float(gram.diagonal().mean())
    if scale <= 0:
        return prior
    jitter = 0.0
    while jitter <= 1e6 * scale:
        strength = pull + jitter
        damped = gram.clone()
        damped.diagonal().add_(strength)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            found = torch.cholesky_solve(right + strength[:, None] * prior, factor)
            if math.isfinite(float(found.sum())):
                return found
        jitter = max(10 * jitter, 1e-12 * scale)
    return prior
