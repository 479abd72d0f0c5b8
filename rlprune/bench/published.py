"""Published ways to score units and to mend what is left, as their papers state them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlprune.batches import Batch
from rlprune.compensation import Context
from rlprune.importance import ScoringData
from rlprune.observe import Observation, Site, rows, stream

if TYPE_CHECKING:
    from rlprune.structure import Group, Groups


def wanda_sp(groups: Groups, group: Group, data: ScoringData) -> Tensor:
    r"""Weights times the size of what they read (Wanda, Sun et al. 2023, by unit as in FLAP).

    .. math:: I_u = \sum_{c \in u} \lVert x_c \rVert_2 \sum_r |W_{rc}|

    Raises:
        DataError: There is no calibration data.
    """
    score = torch.zeros(group.width, dtype=torch.float64)
    for weight, index, moments in _read(groups, group, data):
        size = moments.square.sqrt()
        score += (size * weight.abs().sum(0))[index].sum(1)
    return score.float()


def flap(groups: Groups, group: Group, data: ScoringData) -> Tensor:
    r"""How much what a unit contributes fluctuates, standardised over its group (FLAP, eq. 4-6).

    .. math:: I_u = \sum_{c \in u} \mathrm{Var}(x_c)\, \lVert W_{:,c} \rVert_2^2

    An et al., AAAI 2024.

    Raises:
        DataError: There is no calibration data.
    """
    score = torch.zeros(group.width, dtype=torch.float64)
    for weight, index, moments in _read(groups, group, data):
        score += (moments.variance * weight.square().sum(0))[index].sum(1)
    spread = score.std() if group.width > 1 else score.new_zeros(())
    return ((score - score.mean()) / spread.clamp_min(1e-30)).float()


class UnitScales:
    r"""One factor for every kept unit, by least squares, layer after layer (Kwon et al. 2022).

    .. math:: \min_m E \Bigl\lVert \sum_{v} W_v x_v - \sum_{u \in k} m_u W_u x'_u \Bigr\rVert^2
              + r \lVert m - 1 \rVert^2

    with the dense network's inputs ``x`` and those of the smaller one, ``x'``; section 5.3, with a
    ridge in place of their damped iteration. Factors leave [-10, 10] for 1, as theirs do.
    """

    def __init__(self, ridge: float = 1e-3) -> None:
        self.ridge = ridge

    def apply(self, context: Context) -> None:
        """Scale the weights of ``context.module`` in place.

        Raises:
            DataError: There is no calibration data.
        """
        batches = context.required("unit scales")
        for group in context.groups.prunable:
            for part in context.groups.slices(group):
                path = part.tensor.rpartition(".")[0]
                kept = context.cuts.get(part.tensor, {}).get(part.dim)
                module = context.module.get_submodule(path)
                if part.role == "in" and kept is not None and isinstance(module, nn.Linear):
                    self._scale(context, path, module, part.index, kept, batches)

    def _scale(
        self,
        context: Context,
        path: str,
        module: nn.Linear,
        index: Tensor,
        kept: Tensor,
        batches: Sequence[Batch],
    ) -> None:
        seen: dict[str, list[Tensor]] = {"dense": [], "small": []}
        for name, network in (("dense", context.dense), ("small", context.module)):

            def keep(found: Observation, name: str = name) -> None:
                seen[name].append(rows(found).double().cpu())

            stream(network, batches, {Site(path, "input"): keep})
        dense, small = torch.cat(seen["dense"]), torch.cat(seen["small"])
        whole = context.dense.get_submodule(path).get_parameter("weight").detach().double().cpu()
        target = dense @ whole.T
        weight = module.weight.detach().double().cpu()
        place = {int(c): at for at, c in enumerate(kept)}
        units = [[place[int(c)] for c in row if int(c) in place] for row in index]
        units = [row for row in units if row]
        owner = torch.empty(len(kept), dtype=torch.long)
        for at, row in enumerate(units):
            owner[row] = at
        count = len(units)
        products = (small.T @ small) * (weight.T @ weight)
        gram = torch.zeros(count, count, dtype=torch.float64)
        gram.index_put_((owner[:, None], owner[None, :]), products, accumulate=True)
        right = torch.zeros(count, dtype=torch.float64)
        right.index_add_(0, owner, ((small.T @ target) * weight.T).sum(1))
        pull = self.ridge * gram.diagonal().mean()
        solved = torch.linalg.solve(gram + pull * torch.eye(count), right + pull)
        solved = torch.where(solved.abs() <= 10, solved, torch.ones_like(solved))
        with torch.no_grad():
            module.weight.mul_(solved[owner].to(module.weight))


def _read(groups: Groups, group: Group, data: ScoringData) -> list[tuple[Tensor, Tensor, Spread]]:
    """Weights that read a group, its columns in them, and the moments of what they read."""
    moments: dict[str, Spread] = data.once("input moments", lambda: _moments(groups, data))
    found = []
    for part in groups.slices(group):
        path = part.tensor.rpartition(".")[0]
        if part.role == "in" and path in moments and part.dim == 1:
            weight = groups.tensors[part.tensor].detach().double().cpu()
            found.append((weight, part.index.cpu(), moments[path]))
    return found


class Spread:
    """Mean square and variance of what a layer reads, per input.

    Attributes:
        count: rows so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum = self._squares = torch.zeros((), dtype=torch.float64)

    def add(self, seen: Observation) -> None:
        """Take in what was read."""
        found = rows(seen).double().cpu()
        self.count += len(found)
        self._sum = self._sum + found.sum(0)
        self._squares = self._squares + found.square().sum(0)

    @property
    def square(self) -> Tensor:
        """Mean square, ``[inputs]``."""
        return self._squares / self.count

    @property
    def variance(self) -> Tensor:
        """Unbiased variance, ``[inputs]``."""
        left = self._squares - self._sum.square() / self.count
        return (left / max(self.count - 1, 1)).clamp_min(0)


def _moments(groups: Groups, data: ScoringData) -> dict[str, Spread]:
    """What every linear layer that reads a group reads, by module."""
    batches = data.require("input moments")
    paths = {
        part.tensor.rpartition(".")[0]
        for group in groups.prunable
        for part in groups.slices(group)
        if part.role == "in"
    }
    linear = [p for p in sorted(paths) if isinstance(groups.model.get_submodule(p), nn.Linear)]
    found = {path: Spread() for path in linear}
    stream(groups.model, batches, {Site(p, "input"): spread.add for p, spread in found.items()})
    return found
