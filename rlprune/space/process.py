"""Gaussian processes for what a model with few parameters leaves over."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

NOISES = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2)
_LENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


class Process:
    """A Gaussian process of mean zero, fitted by marginal likelihood over a small grid.

    Matern 5/2; length and noise are those of the grid that maximise the marginal likelihood, the
    scale is their maximiser in closed form (Rasmussen and Williams, 2006, eq. 2.30).

    Args:
        places: ``[N, d]``.
        values: ``[N]``.
        noises: variances of the noise to choose from, relative to the scale.
    """

    def __init__(
        self, places: np.ndarray, values: np.ndarray, noises: Sequence[float] = NOISES
    ) -> None:
        self._places = places
        apart = _distances(places, places)
        unit = np.median(apart[apart > 0]) if (apart > 0).any() else 1.0
        best = -np.inf
        for length in _LENGTHS:
            kernel = _matern(apart / (length * unit))
            for noise in noises:
                lower = _cholesky(kernel + (noise + 1e-10) * np.eye(len(kernel)))
                if lower is None:
                    continue
                half = np.linalg.solve(lower, values)
                scale = float(half @ half) / len(values)
                likelihood = -0.5 * len(values) * np.log(max(scale, 1e-300))
                likelihood -= float(np.log(np.diag(lower)).sum())
                if likelihood > best:
                    best = likelihood
                    self._length, self._scale, self._lower = length * unit, scale, lower
                    self._weights = np.linalg.solve(lower.T, half)

    def mean(self, places: np.ndarray) -> np.ndarray:
        """Mean ``[P]`` at places ``[P, d]``."""
        kernel = _matern(_distances(places, self._places) / self._length)
        return np.asarray(kernel @ self._weights)

    def __call__(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation ``[P]`` at places ``[P, groups]``."""
        kernel = _matern(_distances(places, self._places) / self._length)
        half = self._inverse @ kernel.T
        variance = np.maximum(1.0 - (half**2).sum(0), 0.0)
        return kernel @ self._weights, np.sqrt(self._scale * variance)

    @cached_property
    def _inverse(self) -> np.ndarray:
        return np.asarray(np.linalg.inv(self._lower))


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0.0))


def _matern(distances: np.ndarray) -> np.ndarray:
    scaled = np.sqrt(5.0) * distances
    return np.asarray((1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled))


def _cholesky(matrix: np.ndarray) -> np.ndarray | None:
    try:
        return np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return None
