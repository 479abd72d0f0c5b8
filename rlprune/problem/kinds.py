"""How an output is scored: higher is better, and every kind is a mean over samples or positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Outputs:
    """One network's answers to the scored inputs.

    Attributes:
        logits: ``[N, classes]`` float32, one row per scored position.
        features: Inputs of the last linear layer ``[N, width]``, where they were asked for.
    """

    logits: Tensor
    features: Tensor | None = None


Kind = Callable[[Outputs, Outputs, "Tensor | None"], Tensor]
"""``(candidate, dense, labels [N]) -> scalar``."""


def kl(candidate: Outputs, dense: Outputs, labels: Tensor | None) -> Tensor:
    """Minus the mean KL divergence from the dense network's distribution to the candidate's."""
    target = dense.logits.log_softmax(1)
    guess = candidate.logits.log_softmax(1)
    return -functional.kl_div(guess, target, reduction="batchmean", log_target=True)


def accuracy(candidate: Outputs, dense: Outputs, labels: Tensor | None) -> Tensor:
    """Share of right answers."""
    assert labels is not None
    scored = labels >= 0
    return (candidate.logits.argmax(1) == labels)[scored].double().mean()


def loss(candidate: Outputs, dense: Outputs, labels: Tensor | None) -> Tensor:
    """Minus the cross-entropy."""
    assert labels is not None
    return -functional.cross_entropy(candidate.logits, labels)


def logits(candidate: Outputs, dense: Outputs, labels: Tensor | None) -> Tensor:
    """Minus the mean squared error of the logits, relative to their variance."""
    error = (candidate.logits - dense.logits).square().mean()
    return -error / dense.logits.var().clamp_min(1e-12)


def features(candidate: Outputs, dense: Outputs, labels: Tensor | None) -> Tensor:
    """Linear CKA of the last linear layer's inputs with the dense ones (Kornblith et al., 2019).

    Compares how samples relate to one another, so that the two widths may differ. In [0, 1].
    """
    assert candidate.features is not None
    assert dense.features is not None
    left, right = _gram(candidate.features), _gram(dense.features)
    return (left * right).sum() / (left.norm() * right.norm()).clamp_min(1e-30)


def _gram(rows: Tensor) -> Tensor:
    rows = rows.double() - rows.double().mean(0)
    gram: Tensor = rows @ rows.T
    return gram


KINDS: dict[str, Kind] = {
    "kl": kl,
    "accuracy": accuracy,
    "loss": loss,
    "logits": logits,
    "features": features,
}
"""Scores by name."""

NEED_LABELS = frozenset({"accuracy", "loss"})


def rows_of(output: Tensor, labels: Tensor | None) -> Tensor:
    """One row of class scores per scored position.

    Classes are the last dimension, or dimension 1 where the labels say so (dense prediction).

    Args:
        output: The network's answer, ``[batch, classes]``, ``[batch, ..., classes]`` or
            ``[batch, classes, ...]``.
        labels: Labels of the same batch, if any.

    Returns:
        ``[positions, classes]`` float32.
    """
    if output.ndim == 1:
        output = output[:, None]
    spatial = labels is not None and labels.ndim > 1 and labels.shape[1:] == output.shape[2:]
    if output.ndim > 2 and (spatial or (labels is None and output.ndim > 3)):
        output = output.movedim(1, -1)
    return output.float().reshape(-1, output.shape[-1])


def concatenate(parts: list[Outputs]) -> Outputs:
    """The answers to several batches as one."""
    found = [part.features for part in parts if part.features is not None]
    return Outputs(torch.cat([part.logits for part in parts]), torch.cat(found) if found else None)
