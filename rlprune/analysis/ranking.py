"""Which neurons tell classes apart: without a probe, and by the weights of one."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from rlprune.analysis.rows import chunks, shape
from rlprune.errors import ConfigError, DataError
from rlprune.importance.held import separation

MASSES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""Shares of the weight mass that a search for a minimal set tries."""


def class_means(activations: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean activation of every neuron by class.

    Args:
        activations: ``[tokens, neurons]`` as an array, a tensor or a recording.
        labels: ``[tokens]``, whole numbers or text.

    Returns:
        The classes in ascending order, and ``[classes, neurons]`` float64.

    Raises:
        DataError: There is not one label for every token, or only one class.
    """
    tokens, neurons = shape(activations)
    flat = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels).reshape(-1)
    if len(flat) != tokens:
        raise DataError(f"{len(flat)} labels for {tokens} tokens; give one for each")
    names, codes = np.unique(flat, return_inverse=True)
    if len(names) < 2:
        raise DataError(f"every token has the label {names[0]!r}; two classes are needed")
    sums = np.zeros((len(names), neurons))
    done = 0
    for piece in chunks(activations):
        own = codes[done : done + len(piece)]
        done += len(piece)
        one_hot = (own == np.arange(len(names))[:, None]).astype(np.float64)
        sums += one_hot @ piece.astype(np.float64)
    return names, sums / np.bincount(codes)[:, None]


def probeless(activations: Any, labels: Any) -> np.ndarray:
    """Neurons by how far apart the means of the classes lie (Antverg, Belinkov, ICLR 2022).

    Args:
        activations: ``[tokens, neurons]`` as an array, a tensor or a recording.
        labels: ``[tokens]``.

    Returns:
        Neurons, the one that separates best first, ``[neurons]``.

    Raises:
        DataError: There is not one label for every token, or only one class.
    """
    return descending(separation(class_means(activations, labels)[1]))


def probeless_by_class(activations: Any, labels: Any) -> dict[Any, np.ndarray]:
    """For every class the neurons by ``sum_b |mu_class - mu_b|``, the best first."""
    names, means = class_means(activations, labels)
    apart = {name: np.abs(own - means).sum(0) for name, own in zip(names, means, strict=True)}
    return {name: descending(score) for name, score in apart.items()}


def minimal_set(weights: Any, mass: float) -> np.ndarray:
    """Neurons that carry the greatest weights of some class (Dalvi et al., AAAI 2019).

    Of every class the neurons with the largest absolute weights are taken until they hold ``mass``
    of the class's total; the result is the union over classes.

    Args:
        weights: of a linear probe, ``[classes, neurons]``.
        mass: share of the total, in 0..1.

    Returns:
        Neurons, ascending.

    Raises:
        ConfigError: The share is outside 0..1, or the weights are not a matrix.
    """
    if not 0 <= mass <= 1:
        raise ConfigError(f"mass is {mass}; it is a share, in 0..1")
    sizes = np.abs(np.asarray(weights.detach().cpu() if isinstance(weights, Tensor) else weights))
    if sizes.ndim != 2:
        raise ConfigError(f"weights have shape {sizes.shape}; a probe's are [classes, neurons]")
    taken = np.zeros(sizes.shape[1], dtype=bool)
    for row in sizes:
        order = descending(row)
        enough = np.flatnonzero(np.cumsum(row[order]) >= row.sum() * mass)
        taken[order[: enough[0] + 1 if len(enough) else None]] = True
    return np.flatnonzero(taken)


def descending(scores: np.ndarray) -> np.ndarray:
    """Positions from the largest to the smallest score; ties fall as in the published tools."""
    return np.argsort(scores)[::-1]
