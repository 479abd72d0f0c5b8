"""Merging by activations: a removed input becomes a multiple of the kept one most like it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlprune.compensation.base import METHODS, Context
from rlprune.errors import ConfigError
from rlprune.linear.fits import Fit, prepare

if TYPE_CHECKING:
    pass


@METHODS.register("cluster")
class ClusterMerge:
    r"""Merge every removed input of a layer into the kept one that correlates best with it.

    With ``x_i`` the removed and ``x_j`` the kept input, ``x_i`` is taken for ``t x_j + c`` by least
    squares over the calibration samples, ``t = Cov(x_i, x_j) / Var(x_j)``; its weights times ``t``
    are added to those of j and times ``c`` to the bias. Kept inputs stand for their cluster, as
    medoids do (Dalvi et al., EMNLP 2020, who drop the others). Where the layer has no bias ``c`` is
    0 and moments about zero are taken. "least_squares" lets all kept inputs stand in at once; this
    is its sparse form, with one partner for each.

    Args:
        threshold: an input is merged only if its correlation with the partner is at least this.

    Attributes:
        left_out: after `apply`, the weights that could not be changed and why.

    Raises:
        ConfigError: the threshold is outside 0..1.
    """

    def __init__(self, threshold: float = 0.0) -> None:
        if not 0 <= threshold <= 1:
            raise ConfigError(f"cluster: threshold is {threshold}; |r| lies in 0..1")
        self.threshold = threshold
        self.left_out: dict[str, str] = {}

    def identity(self) -> dict[str, Any]:
        """The options (see :mod:`rlprune.identity`)."""
        return {"threshold": self.threshold}

    def apply(self, context: Context) -> None:
        """Change the consumers of removed units in ``context.module``, in place.

        Raises:
            DataError: there is no calibration data.
        """
        prepared = prepare(context.groups, context.required("cluster"))
        self.left_out = prepared.left_out
        for fit in prepared.fits.values():
            kept, outputs = context.kept(fit.consumer)
            if kept is not None and len(kept):
                self._merge(context, fit, kept, outputs)

    def _merge(self, context: Context, fit: Fit, kept: Tensor, outputs: Tensor | None) -> None:
        consumer = fit.consumer
        dense = consumer.matrix(consumer.weight, getattr(consumer.module, "bias", None))
        if outputs is not None:
            per_output = len(dense) // consumer.weight.shape[1 - consumer.dim]
            rows = (outputs[:, None] * per_output + torch.arange(per_output)).reshape(-1)
            dense = dense[rows]
        at = fit.columns(kept)
        count = fit.gram.shape[0] - int(consumer.intercept)
        stay = at[:-1] if consumer.intercept else at
        gone = torch.ones(count, dtype=torch.bool)
        gone[stay] = False
        removed = gone.nonzero()[:, 0]
        if not len(removed):
            return
        into, ratio, shift = partners(fit, stay, removed, self.threshold)
        module = context.module.get_submodule(consumer.path)
        small, bias = module.get_parameter("weight"), getattr(module, "bias", None)
        matrix = consumer.matrix(small, bias).T.contiguous()
        matrix.index_add_(0, into, ratio[:, None] * dense.T[removed])
        if consumer.intercept:
            matrix[-1] += shift @ dense.T[removed]
        consumer.write(module, matrix.T)


def partners(
    fit: Fit, stay: Tensor, removed: Tensor, threshold: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Of every removed column the kept one that stands for it, and how.

    Args:
        fit: the consumer.
        stay: kept columns.
        removed: the others.
        threshold: least absolute correlation; below it ratio is 0.

    Returns:
        Position among ``stay``, ratio t and shift c, ``[removed]`` each.
    """
    gram = fit.gram.cpu()
    mean = gram[:, -1] if fit.consumer.intercept else torch.zeros(len(gram), dtype=gram.dtype)
    moments = gram - torch.outer(mean, mean)
    own = moments.diagonal().clamp_min(0)
    alive = own > 1e-12 * own.mean()
    cross = moments[removed][:, stay]
    scale = (own[removed, None] * own[None, stay]).clamp_min(1e-300).sqrt()
    alike = torch.where(alive[stay], (cross / scale).abs(), torch.zeros((), dtype=gram.dtype))
    best, into = alike.max(1)
    taken = cross.gather(1, into[:, None])[:, 0] / own[stay][into].clamp_min(1e-300)
    ratio = torch.where((best >= threshold) & (best > 0), taken, torch.zeros_like(taken))
    shift = mean[removed] - ratio * mean[stay][into]
    return into, ratio, shift
