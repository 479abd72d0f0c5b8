"""Linear probes with an elastic net, fitted along a path of penalties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rlprune.errors import ConfigError, DataError

PENALTIES = (0.03, 0.01, 0.003, 0.001, 0.0003)
"""Penalties that a path goes through, the strongest first."""


@dataclass(frozen=True)
class Probe:
    """A multinomial logistic regression on standardised activations.

    Attributes:
        classes: ``[classes]``, ascending.
        weight: of standardised neurons, ``[classes, neurons]`` float32.
        bias: ``[classes]``.
        mean: of the neurons it was fitted on, ``[neurons]``.
        scale: their standard deviation, 1 where they never change.
        penalty: what it was fitted with.
    """

    classes: np.ndarray
    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    penalty: float

    def logits(self, x: Any, keep: Any = None) -> Tensor:
        """``[items, classes]``; with ``keep`` all neurons but those are held at their mean.

        Args:
            x: ``[items, neurons]``.
            keep: positions of neurons; None keeps all.
        """
        rows = (torch.as_tensor(x, dtype=torch.float32) - self.mean) / self.scale
        if keep is None:
            return rows @ self.weight.T + self.bias
        at = torch.as_tensor(np.asarray(keep))
        return rows[:, at] @ self.weight[:, at].T + self.bias

    def correct(self, x: Any, labels: np.ndarray, keep: Any = None) -> np.ndarray:
        """Of which items the class is told right, ``[items]`` bool."""
        found = self.classes[self.logits(x, keep).argmax(1).numpy()]
        return np.asarray(found == labels)

    def accuracy(self, x: Any, labels: np.ndarray, keep: Any = None) -> float:
        """Share of the items whose class is told right."""
        return float(self.correct(x, labels, keep).mean())


def elastic_net_path(
    x: Any,
    labels: np.ndarray,
    penalties: Sequence[float] = PENALTIES,
    *,
    ratio: float = 0.1,
    iterations: int = 80,
) -> list[Probe]:
    r"""Probes with one penalty after the other, each starting from the one before.

    Minimises ``cross-entropy + p (ratio |W|_1 + (1 - ratio) / 2 |W|_2^2)`` by accelerated proximal
    gradient steps with restarts (Beck, Teboulle 2009; O'Donoghue, Candes 2015). Nothing is random.

    Args:
        x: ``[items, neurons]``.
        labels: ``[items]``.
        penalties: ``p``, in the order they are gone through.
        ratio: share of the absolute values in the penalty, in 0..1.
        iterations: most steps for each penalty.

    Returns:
        One probe for each penalty.

    Raises:
        ConfigError: A penalty is negative or the ratio is outside 0..1.
        DataError: There is only one class, or not one label for each item.
    """
    if min(penalties) < 0 or not 0 <= ratio <= 1:
        raise ConfigError(f"penalties {tuple(penalties)} must be >= 0 and ratio {ratio} in 0..1")
    rows = torch.as_tensor(np.asarray(x), dtype=torch.float32)
    if len(rows) != len(labels):
        raise DataError(f"{len(labels)} labels for {len(rows)} items")
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise DataError(f"every item has the label {classes[0]!r}; two classes are needed")
    mean, scale = rows.mean(0), rows.std(0, correction=0)
    scale = torch.where(scale > 1e-6 * (mean.abs() + 1e-12), scale, torch.ones(()))
    rows = (rows - mean) / scale
    rows = torch.cat([rows, torch.ones(len(rows), 1)], 1)
    target = functional.one_hot(torch.from_numpy(codes), len(classes)).float()
    step = 2.0 * len(rows) / _largest(rows)
    found = torch.zeros(len(classes), rows.shape[1])
    probes = []
    for penalty in penalties:
        found = _fit(rows, target, found, penalty, ratio, step, iterations)
        weight, bias = found[:, :-1].clone(), found[:, -1].clone()
        probes.append(Probe(classes, weight, bias, mean, scale, penalty))
    return probes


def best(probes: Sequence[Probe], x: Any, labels: np.ndarray) -> Probe:
    """The probe that does best on held-out items; of equals the one with the stronger penalty."""
    scores = [probe.accuracy(x, labels) for probe in probes]
    return probes[int(np.argmax(scores))]


def train_probe(
    train: tuple[Any, np.ndarray],
    held: tuple[Any, np.ndarray],
    penalties: Sequence[float] = PENALTIES,
) -> Probe:
    """Fit a path on ``train`` and take the penalty that does best on ``held``.

    Args:
        train: ``[items, neurons]`` and their labels.
        held: likewise; no test data.
        penalties: see :func:`elastic_net_path`.
    """
    return best(elastic_net_path(*train, penalties), *held)


def _fit(
    rows: Tensor,
    target: Tensor,
    start: Tensor,
    penalty: float,
    ratio: float,
    step: float,
    iterations: int,
) -> Tensor:
    shrink = step * penalty * ratio
    decay = 1.0 / (1.0 + step * penalty * (1 - ratio))
    found, ahead, momentum = start, start, 1.0
    for _ in range(iterations):
        error = torch.softmax(ahead @ rows.T, 0) - target.T
        moved = ahead - step * (error @ rows) / len(rows)
        new = functional.softshrink(moved, shrink) * decay if penalty else moved
        new[:, -1] = moved[:, -1]
        if float(((ahead - new) * (new - found)).sum()) > 0:
            momentum = 1.0
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = new + (momentum - 1) / following * (new - found)
        change = float((new - found).norm() / new.norm().clamp_min(1e-12))
        found, momentum = new, following
        if change < 1e-4:
            break
    return found


def _largest(rows: Tensor) -> float:
    """An upper estimate of the largest eigenvalue of ``rows^T rows``, by power iteration."""
    vector = torch.ones(rows.shape[1]) / rows.shape[1] ** 0.5
    value = 1.0
    for _ in range(20):
        vector = rows.T @ (rows @ vector)
        value = float(vector.norm())
        vector /= value
    return 1.1 * value
