"""How gates follow from what is learned: one interface, three parametrisations."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from rlprune.plugins import Registry

KINDS: Registry[type[Gates]] = Registry("kind of gates", "rlprune.gates")
"""Parametrisations by name."""

_OPEN = 2.0
_SPREAD = 0.5


class Gates(nn.Module, ABC):
    """Gates in [0, 1] as functions of learned parameters.

    Args:
        blocks: ``[n]`` number of the group or branch that each gate belongs to, ascending.
        prior: ``[n]`` around 0, where the unit stands in its group before anything is learned; from
            -1 to 1 by importance, further apart where a plan says more.
    """

    def __init__(self, blocks: Tensor, prior: Tensor) -> None:
        super().__init__()
        self.blocks = blocks
        self.anneal(0.0)

    @abstractmethod
    def sample(self, generator: torch.Generator) -> Tensor:
        """Gates ``[n]`` for one step of training."""

    @abstractmethod
    def expected(self) -> Tensor:
        """``[n]`` how much of each unit is paid for: the chance that its gate is not zero."""

    @abstractmethod
    def settled(self) -> Tensor:
        """``[n]`` the gates without chance, as the learned network is handed on."""

    @abstractmethod
    def scores(self) -> Tensor:
        """``[n]`` order of the units, the ones to keep highest."""

    def anneal(self, progress: float) -> None:
        """Set what changes along the training, at ``progress`` in [0, 1]."""


@KINDS.register("hard_concrete")
class HardConcrete(Gates):
    r"""Stretched binary concrete variables (Louizos, Welling, Kingma, ICLR 2018, eq. 10-12).

    .. math:: s = \sigma((\log u - \log(1 - u) + \log\alpha) / \beta), \quad
        z = \min(1, \max(0, s (\zeta - \gamma) + \gamma))

    The chance that a gate is open at all is
    :math:`\sigma(\log\alpha - \beta \log(-\gamma / \zeta))`. The temperature falls from 2/3 to a
    third, where samples are nearly binary.
    """

    gamma, zeta = -0.1, 1.1

    def __init__(self, blocks: Tensor, prior: Tensor) -> None:
        super().__init__(blocks, prior)
        self.log_alpha = nn.Parameter(_OPEN + _SPREAD * prior)

    def anneal(self, progress: float) -> None:
        """Lower the temperature."""
        self.beta = 2 / 3 * 0.5**progress

    def sample(self, generator: torch.Generator) -> Tensor:
        """Drawn gates, reparametrised."""
        drawn = torch.rand(self.log_alpha.shape, generator=generator, dtype=self.log_alpha.dtype)
        noise = torch.logit(drawn.clamp(1e-6, 1 - 1e-6)).to(self.log_alpha.device)
        soft = torch.sigmoid((noise + self.log_alpha) / self.beta)
        return (soft * (self.zeta - self.gamma) + self.gamma).clamp(0.0, 1.0)

    def expected(self) -> Tensor:
        """Chance that a gate is not zero."""
        shift = self.beta * math.log(-self.gamma / self.zeta)
        return torch.sigmoid(self.log_alpha - shift)

    def settled(self) -> Tensor:
        """The stretched mean, clipped (eq. 13)."""
        mean = torch.sigmoid(self.log_alpha)
        return (mean * (self.zeta - self.gamma) + self.gamma).clamp(0.0, 1.0)

    def scores(self) -> Tensor:
        """Log odds."""
        return self.log_alpha.detach()


@KINDS.register("scaling")
class Scaling(Gates):
    r"""Scaling factors :math:`g = w^2 / (w^2 + \epsilon)`.

    Epsilon falls geometrically from 0.1 to 0.001, so a gate is a gentle scale first and nearly a
    switch at the end.
    """

    first, last = 0.1, 0.001

    def __init__(self, blocks: Tensor, prior: Tensor) -> None:
        super().__init__(blocks, prior)
        self.w = nn.Parameter(1.0 + 0.1 * prior)

    def anneal(self, progress: float) -> None:
        """Lower epsilon."""
        self.epsilon = self.first * (self.last / self.first) ** progress

    def sample(self, generator: torch.Generator) -> Tensor:
        """The factors; nothing is drawn."""
        return self.expected()

    def expected(self) -> Tensor:
        """The factors."""
        squared = self.w**2
        return squared / (squared + self.epsilon)

    def settled(self) -> Tensor:
        """The factors."""
        return self.expected()

    def scores(self) -> Tensor:
        """Size of w."""
        return self.w.detach().abs()


@KINDS.register("top_k")
class TopK(Gates):
    """The units of highest score, as many as a learned keep ratio says; straight through.

    Forward the gates are binary. Backward they are sigmoids around the threshold between the last
    kept and the first removed unit (Bengio, Leonard, Courville, 2013), shifted by the ratio's
    logit, so that scores and ratios both learn. The sigmoids sharpen along the training.
    """

    def __init__(self, blocks: Tensor, prior: Tensor) -> None:
        super().__init__(blocks, prior)
        widths = torch.bincount(blocks)
        self.score = nn.Parameter(_SPREAD * prior)
        self.ratio = nn.Parameter(torch.full((len(widths),), _OPEN, dtype=prior.dtype))
        self._widths, self._starts = widths, widths.cumsum(0) - widths

    def anneal(self, progress: float) -> None:
        """Sharpen the surrogate."""
        self.temperature = 0.5 * 0.4**progress

    def sample(self, generator: torch.Generator) -> Tensor:
        """Binary gates with the gradient of soft ones; nothing is drawn."""
        score, blocks = self.score.detach(), self.blocks
        by_score = torch.argsort(score, descending=True, stable=True)
        order = by_score[torch.argsort(blocks[by_score], stable=True)]
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device) - self._starts[blocks]
        single = self._widths == 1
        kept = (torch.sigmoid(self.ratio.detach()) * self._widths).round().long()
        kept = torch.where(single, kept, kept.clamp_min(1))
        ranked = score[order]
        last = ranked[self._starts + (kept - 1).clamp_min(0)]
        after = ranked[self._starts + torch.minimum(kept, self._widths - 1)]
        threshold = ((last + after) / 2)[blocks]
        logit = self.ratio - self.ratio.detach()
        soft = torch.sigmoid((self.score - threshold) / self.temperature + logit[blocks])
        hard = (place < kept[blocks]).to(soft.dtype)
        return hard + soft - soft.detach()

    def expected(self) -> Tensor:
        """The group's keep ratio."""
        return torch.sigmoid(self.ratio)[self.blocks]

    def settled(self) -> Tensor:
        """The binary gates."""
        return self.sample(torch.Generator()).detach()

    def scores(self) -> Tensor:
        """The learned scores."""
        return self.score.detach()


@KINDS.register("random")
class Random(TopK):
    """The control: as many units as a learned keep ratio says, drawn once and for all."""

    def __init__(self, blocks: Tensor, prior: Tensor) -> None:
        super().__init__(blocks, prior)
        generator = torch.Generator().manual_seed(len(prior))
        drawn = torch.randn(len(prior), generator=generator).to(prior)
        self.score = nn.Parameter(drawn, requires_grad=False)
