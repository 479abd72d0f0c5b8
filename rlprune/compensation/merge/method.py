"""Neuron merging: each removed unit's outgoing weights go to the kept unit most like it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from rlprune.compensation.base import METHODS, Context
from rlprune.compensation.merge.paths import Path, folded, paths
from rlprune.errors import ConfigError, StructureError

if TYPE_CHECKING:
    from rlprune.structure import Groups

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Likeness:
    """How alike the units of one group are, from the dense weights.

    Attributes:
        norms: length of every unit's folded weight vector, [width].
        cosine: of every two units, [width, width].
        constants: the folded constants, [width, m]; m is 0 where they are part of the vectors.
    """

    norms: Tensor
    cosine: Tensor
    constants: Tensor


@dataclass(frozen=True)
class Prepared:
    """What merging needs of a network, whatever the plan."""

    paths: dict[str, Path]
    likeness: dict[str, Likeness]


@METHODS.register("merge")
class Merge:
    r"""Neuron merging (Kim, Kim, Park, Jeon, NeurIPS 2020), without data.

    With ``v_u, c_u`` a unit's weights and constant, batch normalisation folded in, a removed unit i
    is taken for ``t`` times the kept unit j, ``t = |v_i| / |v_j|``. Behind positively homogeneous
    ops of degree k its outgoing weights, times ``t^k``, are added to those of j. j minimises

    .. math:: \lambda (1 - \cos(v_i, v_j)) +
              (1 - \lambda) \frac{|c_i - t c_j|}{\max_{j'} |c_i - t c_{j'}|}

    where there is batch normalisation (the paper's eq. 9, folded); elsewhere the constants join the
    vectors and the cosine alone decides. Units produced in several places (residual sums) are
    compared by all their vectors at once. Likeness is always that of the dense network.

    Args:
        threshold: a unit is merged only if its cosine with the chosen one is at least this.
        lam: weight of the cosine against the constants, in [0, 1].

    Attributes:
        left_out: after `prepare`, the groups that cannot be merged and why.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(self, threshold: float = 0.1, lam: float = 0.85) -> None:
        if not -1 <= threshold <= 1:
            raise ConfigError(f"merge: threshold is {threshold}; a cosine lies in [-1, 1]")
        if not 0 <= lam <= 1:
            raise ConfigError(f"merge: lam is {lam}; it must be in [0, 1]")
        self.threshold, self.lam = threshold, lam
        self.left_out: dict[str, str] = {}
        self._prepared: WeakKeyDictionary[object, Prepared] = WeakKeyDictionary()

    def identity(self) -> dict[str, Any]:
        """The options (see :mod:`rlprune.identity`)."""
        return {"threshold": self.threshold, "lam": self.lam}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.threshold, self.lam)

    def prepare(self, groups: Groups) -> Prepared:
        """Follow the groups of a network and compare their units; done once per network."""
        known = self._prepared.get(groups)
        if known is None:
            found = paths(groups)
            likeness = {}
            for name, path in found.items():
                if path.reason:
                    continue
                try:
                    likeness[name] = _likeness(groups, name, path)
                except StructureError as error:
                    path.reason = str(error)
            known = self._prepared[groups] = Prepared(found, likeness)
            for name, path in found.items():
                if path.reason:
                    logger.info("merge leaves group '%s' as it is: %s", name, path.reason)
        self.left_out = {n: p.reason for n, p in known.paths.items() if p.reason}
        return known

    def mixing(self, groups: Groups, group: str, kept: Tensor, removed: Tensor) -> Tensor:
        """How much of each removed unit every kept one takes over.

        Args:
            groups: the dense network's groups.
            group: name of a group that is not in `left_out`.
            kept: indices of the kept units.
            removed: indices of the removed units.

        Returns:
            Scales t, [kept, removed], float64, at most one per column.
        """
        like = self.prepare(groups).likeness[group]
        cosine = like.cosine[removed][:, kept]
        scale = like.norms[removed, None] / like.norms[None, kept].clamp_min(1e-300)
        score = 1 - cosine
        if like.constants.shape[1]:
            constants = like.constants
            gap = (constants[removed, None] - scale[:, :, None] * constants[None, kept]).norm(dim=2)
            worst = gap.amax(dim=1, keepdim=True).clamp_min(1e-300)
            score = self.lam * score + (1 - self.lam) * gap / worst
        score = torch.where(like.norms[None, kept] > 0, score, torch.inf)
        best = score.argmin(dim=1, keepdim=True)
        fits = (cosine.gather(1, best) >= self.threshold) & (like.norms[removed, None] > 0)
        taken = torch.where(fits, scale.gather(1, best), 0.0)
        return torch.zeros_like(scale).scatter(1, best, taken).T

    def apply(self, context: Context) -> None:
        """Add the removed units' outgoing weights to those of ``context.module``, in place."""
        prepared = self.prepare(context.groups)
        kept = context.cuts
        for name, units in context.plan.keep.items():
            width = context.plan.dense[name]
            if not 0 < len(units) < width or name not in prepared.likeness:
                continue
            alive = torch.zeros(width, dtype=torch.bool)
            alive[list(units)] = True
            stay, gone = alive.nonzero().reshape(-1), (~alive).nonzero().reshape(-1)
            mixing = self.mixing(context.groups, name, stay, gone)
            consumers = {n: c for n, c in prepared.paths[name].consumers.items() if n in kept}
            for part in context.groups.slices(name):
                if part.role == "in" and part.tensor in consumers:
                    scales = torch.where(mixing > 0, mixing ** consumers[part.tensor], 0.0)
                    added = _added(context.groups, part.tensor, part.dim, kept[part.tensor])
                    _absorb(
                        context.module.get_parameter(part.tensor),
                        added.index_select(part.dim, part.index[gone].reshape(-1)),
                        part.dim,
                        _positions(kept[part.tensor][part.dim], part.index[stay]),
                        scales,
                    )


def _added(groups: Groups, name: str, dim: int, kept: dict[int, Tensor | None]) -> Tensor:
    """A dense weight cut along every dimension but one, float64 on the CPU."""
    weight = groups.tensors[name].detach().cpu().double()
    for other, index in kept.items():
        if other != dim and index is not None:
            weight = weight.index_select(other, index)
    return weight


def _positions(kept: Tensor | None, index: Tensor) -> Tensor:
    """Where positions of the dense dimension lie in the smaller one."""
    return index if kept is None else torch.searchsorted(kept, index)


def _absorb(small: Tensor, gone: Tensor, dim: int, into: Tensor, scales: Tensor) -> None:
    """``small[into] += scales @ gone`` along a dimension, position by position of each unit."""
    stay, per_unit = into.shape
    columns = gone.movedim(dim, 0)
    mixed = scales @ columns.reshape(scales.shape[1], -1)
    mixed = mixed.reshape(stay * per_unit, *columns.shape[1:]).movedim(0, dim)
    with torch.no_grad():
        update = mixed.to(small.device, small.dtype)
        small.index_add_(dim, into.reshape(-1).to(small.device), update)


def _likeness(groups: Groups, name: str, path: Path) -> Likeness:
    vectors, constants = [], []
    for term in path.terms:
        vector, constant = folded(groups, name, term)
        vectors.append(vector)
        constants.append(constant)
    separate = any(affine.op == "bn" for term in path.terms for affine in term.chain)
    if not separate:
        vectors += constants
    joined = torch.cat(vectors, dim=1)
    norms = joined.norm(dim=1)
    unit = joined / norms.clamp_min(1e-300)[:, None]
    rest = torch.cat(constants, dim=1)
    return Likeness(norms, unit @ unit.T, rest if separate else rest[:, :0])
