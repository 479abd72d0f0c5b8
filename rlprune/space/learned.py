"""A cost without a formula, learned from every plan it was measured on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from rlprune.space.layers import KINDS, Layers

TILES = (1, 2, 4, 8, 16, 32, 64, 128)
_WORKING = (
    ("outputs",),
    ("inputs",),
    ("inputs", "outputs"),
    ("inputs", "outputs", "weights"),
    ("weights",),
    ("macs",),
)
_FEWEST = 3
_LENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_NOISES = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2)
_FLOOR = 1e-9


class Terms:
    """What the cost of running a network is usually made of, as functions of its widths.

    Sums over layers of what is multiplied, held, read and written, with lengths rounded up to
    tiles; the same for weights that exceed some cache; the largest working set of a layer; the
    number of layers. Each is relative to the dense network's.

    Args:
        layers: sizes of the layers.
        dense: ``[groups]`` dense widths.
    """

    def __init__(self, layers: Layers, dense: np.ndarray) -> None:
        self._layers = layers
        weights = layers.sizes(dense[None])["weights"][0]
        weights = np.unique(weights[weights > 0])
        low, high = (weights.min(), weights.max()) if len(weights) else (1.0, 1.0)
        self._cliffs = tuple(2.0 ** np.arange(np.ceil(np.log2(max(low / 16, 1))), np.log2(high)))
        self.names: list[tuple[str, int]] = [("constant", 1), ("layers", 1)]
        self.names += [(kind, tile) for tile in TILES for kind in KINDS]
        self.names += [("cliff", at) for at in range(len(self._cliffs))]
        self.names += [("largest", at) for at in range(len(_WORKING))]
        self._scale = np.ones(len(self.names))
        values = self(dense[None])[0]
        self._scale = np.where(values > 0, values, 1.0)

    def __call__(self, widths: np.ndarray, only: Sequence[int] | None = None) -> np.ndarray:
        """Values ``[P, terms]`` at widths ``[P, groups]``; those not in ``only`` are left 0."""
        wanted = range(len(self.names)) if only is None else only
        tiles = {self.names[at][1] for at in wanted if self.names[at][0] in KINDS}
        sizes = {tile: self._layers.sizes(widths, tile) for tile in tiles | {1}}
        plain = sizes[1]
        out = np.zeros((len(widths), len(self.names)))
        for at in wanted:
            name, which = self.names[at]
            if name == "constant":
                value: np.ndarray | float = 1.0
            elif name == "layers":
                value = (plain["outputs"] > 0).sum(1)
            elif name == "cliff":
                held = plain["weights"]
                value = (held * (held > self._cliffs[which])).sum(1)
            elif name == "largest":
                value = sum((plain[kind] for kind in _WORKING[which]), np.zeros(())).max(1)
            else:
                value = sizes[which][name].sum(1)
            out[:, at] = value
        return out / self._scale


class LearnedCost:
    """A black-box cost as a function of widths: a sum of terms, and a Gaussian process on top.

    The terms get non-negative factors (least squares on relative errors), so before much is known
    the guess is monotone, and right at once for costs that are made of them. What they leave, as a
    ratio, goes to a Gaussian process on log widths (Matern 5/2), whose length and noise maximise
    the marginal likelihood (Rasmussen and Williams, 2006, eq. 2.30).

    Args:
        terms: of the network.
        dense: ``[groups]`` dense widths.
        cost: the dense network's value, the unit of what is fitted; 1 is taken where it is none.
    """

    def __init__(self, terms: Terms, dense: np.ndarray, cost: float) -> None:
        self._terms, self._dense = terms, np.maximum(dense, 1)
        self._cost = cost if cost > 0 else 1.0
        self._factors = np.zeros(len(terms.names))
        self._factors[terms.names.index(("macs", 1))] = 0.5
        self._factors[terms.names.index(("outputs", 1))] = 0.5
        self._process: _Process | None = None
        self.points = 0

    def learn(self, widths: np.ndarray, costs: np.ndarray) -> None:
        """Fit anew.

        Args:
            widths: ``[N, groups]`` of the plans measured, the dense network's among them.
            costs: ``[N]`` their values.
        """
        self.points = len(costs)
        targets = np.maximum(costs / self._cost, _FLOOR)
        values = self._terms(widths)
        self._factors = _factors(values, targets)
        base = np.maximum(values @ self._factors, _FLOOR)
        rest = np.log(targets) - np.log(base)
        self._process = None
        if len(rest) > _FEWEST and np.abs(rest).max() > 1e-4:
            self._process = _Process(self._places(widths), rest)

    def __call__(self, widths: np.ndarray) -> np.ndarray:
        """Costs ``[P]`` expected at widths ``[P, groups]``."""
        return self.forecast(widths)[0]

    def forecast(self, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected costs ``[P]``, and their relative standard deviations ``[P]``."""
        used = np.flatnonzero(self._factors)
        base = np.maximum(self._terms(widths, used.tolist()) @ self._factors, _FLOOR)
        if self._process is None:
            return base * self._cost, np.zeros(len(base))
        mean, spread = self._process(self._places(widths))
        return base * np.exp(mean) * self._cost, spread

    def _places(self, widths: np.ndarray) -> np.ndarray:
        return np.log2(np.maximum(widths, 0.5) / self._dense)

    @property
    def described(self) -> dict[str, float]:
        """Factors of the terms in use by name, for logs and reports."""
        return {
            f"{name}@{which}": float(factor)
            for (name, which), factor in zip(self._terms.names, self._factors, strict=True)
            if factor > 0
        }


def _factors(values: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Non-negative factors with the least squared relative error, few of them where few will do.

    Ridge keeps what is nearly the same apart from exploding; terms that give little are dropped.
    """
    from scipy.optimize import nnls

    relative = values / targets[:, None]
    ridge = 1e-4 * np.eye(relative.shape[1])
    rows = np.vstack([relative, ridge])
    aims = np.concatenate([np.ones(len(targets)), np.zeros(len(ridge))])
    factors: np.ndarray = nnls(rows, aims)[0]
    share = (relative * factors).mean(0)
    kept = np.flatnonzero(share > 1e-3)
    if 0 < len(kept) < np.count_nonzero(factors):
        fitted = nnls(np.vstack([relative[:, kept], ridge[:, kept]]), aims)[0]
        factors = np.zeros_like(factors)
        factors[kept] = fitted
    return factors


class _Process:
    """A Gaussian process of mean zero, fitted by marginal likelihood over a small grid."""

    def __init__(self, places: np.ndarray, values: np.ndarray) -> None:
        self._places = places
        apart = _distances(places, places)
        unit = np.median(apart[apart > 0]) if (apart > 0).any() else 1.0
        best = -np.inf
        for length in _LENGTHS:
            kernel = _matern(apart / (length * unit))
            for noise in _NOISES:
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
