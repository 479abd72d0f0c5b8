"""Optimizers and the learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from rlprune.errors import TrainingError
from rlprune.training.config import Recipe

_START = 0.04


def build_optimizer(model: nn.Module, config: Recipe) -> torch.optim.Optimizer:
    """Make the optimizer of a recipe.

    Biases and normalisation parameters (one dimension or none) are not decayed unless
    ``config.decay_all`` is set.

    Args:
        model: The network; parameters without ``requires_grad`` are left out.
        config: The recipe.

    Returns:
        SGD with Nesterov momentum, or AdamW.

    Raises:
        TrainingError: No parameter requires a gradient.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise TrainingError(f"{type(model).__name__} has no parameter that requires a gradient")
    decayed = [p for p in trained if config.decay_all or p.dim() > 1]
    kept = [p for p in trained if not (config.decay_all or p.dim() > 1)]
    groups = [
        {"params": group, "weight_decay": decay}
        for group, decay in ((decayed, config.weight_decay), (kept, 0.0))
        if group
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999), foreach=True)
    nesterov = config.momentum > 0
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, foreach=True
    )


def learning_rate(step: int, total: int, config: Recipe) -> float:
    """Learning rate of one optimisation step.

    Args:
        step: From 0 to ``total - 1``.
        total: Number of steps of the whole training.
        config: The recipe; its ``schedule``, ``warmup`` and ``lr`` count.

    Returns:
        The learning rate: linear from 4 % of ``config.lr`` up to it, then down as scheduled.
    """
    peak = config.warmup * total
    if step < peak:
        return config.lr * (_START + (1 - _START) * step / peak)
    if config.schedule == "constant":
        return config.lr
    left = (total - step) / max(total - peak, 1)
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * (1 - left)))
    return config.lr * left
