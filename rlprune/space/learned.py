"""A cost without a formula, learned from every plan it was measured on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlprune.space.layers import KINDS, Layers
from rlprune.space.process import Process

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
        weights = layers.sizes("weights", dense[None])[0]
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
        known: dict[tuple[str, int], np.ndarray] = {}

        def sized(kind: str, tile: int = 1) -> np.ndarray:
            if (kind, tile) not in known:
                known[kind, tile] = self._layers.sizes(kind, widths, tile)
            return known[kind, tile]

        out = np.zeros((len(widths), len(self.names)))
        for at in wanted:
            name, which = self.names[at]
            if name == "constant":
                value: np.ndarray | float = 1.0
            elif name == "layers":
                value = (sized("outputs") > 0).sum(1)
            elif name == "cliff":
                held = sized("weights")
                value = (held * (held > self._cliffs[which])).sum(1)
            elif name == "largest":
                value = sum((sized(kind) for kind in _WORKING[which]), np.zeros(())).max(1)
            else:
                value = sized(name, which).sum(1)
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
        self._process: Process | None = None
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
            self._process = Process(self._places(widths), rest)

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
