"""Least-squares reconstruction: surviving weights take over what removed inputs contributed."""

from __future__ import annotations

import logging
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from rlprune.compaction.slicing import Slicer
from rlprune.compensation.context import Context
from rlprune.compensation.moments import InputMoments, consumers
from rlprune.errors import ConfigError

_log = logging.getLogger(__name__)


class LeastSquares:
    r"""Refit every consumer of removed units so that its output stays what it was.

    With the dense input ``x`` of a linear layer or convolution (whole patches where affordable),
    its second moments ``M = E[x x^T]``, kept entries ``k`` and current weights ``W0``, the refitted
    weights minimise ``E ||W x - W' x_k||^2 + r ||W' - W0||^2``:

    .. math:: W'^T = (M_{kk} + rI)^{-1} (M_{k\cdot} W^T + r W_0^T)

    (He et al., ICCV 2017, eq. 3; ridge toward ``W0`` instead of zero). The moments come from one
    pass of the dense network, so a plan costs one linear solve per layer and no data. ``W0`` is
    what earlier methods left, so after "merge" scarce data shrinks toward merging.

    Args:
        ridge: strength of the pull toward ``W0``; ``r`` is ``ridge`` times the mean of the diagonal
            of ``M_kk``, plus a part that falls with the number of calibration samples.
        patch_limit: see `InputMoments`.
        rows: see `InputMoments`.

    Raises:
        ConfigError: ``ridge`` is negative.
        DataError: there is no calibration data.
    """

    def __init__(self, ridge: float = 1e-3, patch_limit: int = 1200, rows: int = 8192) -> None:
        if ridge < 0:
            raise ConfigError(f"least_squares: ridge is {ridge}; it must be zero or positive")
        self.ridge, self.patch_limit, self.rows = ridge, patch_limit, rows
        self._prepared: WeakKeyDictionary[object, tuple[InputMoments, Slicer]] = WeakKeyDictionary()

    def prepare(self, context: Context) -> tuple[InputMoments, Slicer]:
        """Moments of the dense network; computed once per network."""
        if context.groups not in self._prepared:
            moments = InputMoments(
                context.groups, context.batches, patch_limit=self.patch_limit, rows=self.rows
            )
            if moments.left_out:
                _log.info("least_squares leaves these weights as they are: %s", moments.left_out)
            self._prepared[context.groups] = (moments, Slicer(context.groups))
        return self._prepared[context.groups]

    def apply(self, context: Context) -> None:
        """Refit the consumers of ``context.module`` in place."""
        moments, slicer = self.prepare(context)
        kept = slicer.kept_by_tensor(context.plan)
        for name, dense in consumers(context.groups)[0].items():
            dims = kept.get(name, {})
            if dims.get(1) is None or name not in moments.values:
                continue
            small = context.module.get_submodule(name.rpartition(".")[0])
            weight = self._refit(moments, name, dense, small, dims)
            with torch.no_grad():
                small.weight.copy_(weight)

    def _refit(
        self,
        moments: InputMoments,
        name: str,
        dense: nn.Module,
        small: nn.Module,
        dims: dict[int, Tensor | None],
    ) -> Tensor:
        moment = moments.values[name]
        weight = dense.weight.detach().double().cpu()
        start = small.weight.detach().double().cpu()
        rows = dims.get(0)
        if rows is not None:
            weight = weight[rows]
        columns = dims[1]
        assert columns is not None
        kernel = weight[0, 0].numel()
        if moments.is_patch(name, dense):
            full = weight.flatten(1)
            at = (columns[:, None] * kernel + torch.arange(kernel)).flatten()
            fitted = self._solve(moment, at, full, start.flatten(1), moments.images)
            return fitted.reshape(start.shape)
        full = weight.reshape(*weight.shape[:2], kernel).transpose(1, 2).flatten(0, 1)
        prior = start.reshape(*start.shape[:2], kernel).transpose(1, 2).flatten(0, 1)
        fitted = self._solve(moment, columns, full, prior, moments.images)
        return fitted.reshape(start.shape[0], kernel, -1).transpose(1, 2).reshape(start.shape)

    def _solve(
        self, moment: Tensor, kept: Tensor, full: Tensor, prior: Tensor, images: int
    ) -> Tensor:
        gram = moment[kept][:, kept]
        scale = float(gram.diagonal().mean().clamp_min(1e-12))
        pull = scale * (self.ridge + len(kept) / (50.0 * images * max(1, images // 100)))
        right = moment[kept] @ full.T + pull * prior.T
        gram = gram + pull * torch.eye(len(kept), dtype=gram.dtype)
        return torch.linalg.solve(gram, right).T
