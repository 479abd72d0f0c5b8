"""What a plan will earn: predicted damage that learns from evaluations, and a residual process."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rlprune.space.process import Process

Gains = Callable[[np.ndarray], np.ndarray]

_NOISE, _NOISE_SLOPE = 0.03, 0.1
_LEVEL_SPREAD, _SLOPE_SPREAD = 1.0, 1.0
_FLOOR = 1e-9
_FEWEST = 8
_NOISES = (1e-2, 1e-1, 1.0)


class Surrogate:
    r"""The gain of plans from the damage that every group alone does.

    Gains are logarithms (:func:`rlprune.search.rewards.log_gain`), and

    .. math:: -\text{gain} = a + e^b \log \sum_g e^{c_g} D_g

    with a level, a slope, and a factor for every group that says how much more it matters than was
    predicted. Gaussian priors hold the factors near 1; the maximum a posteriori is a least-squares
    problem, its curvature gives the posterior (Laplace). Plans much worse than the best count for
    less. What the formula leaves goes to a Gaussian process on :math:`\sqrt{D_g}`, in which damage
    is about a squared distance.

    Args:
        dimensions: number of groups.
        spread: prior standard deviation of the factors' logarithms.
        capacity: newest points that the process keeps beside the best ones.
    """

    def __init__(self, dimensions: int, spread: float = 0.5, capacity: int = 300) -> None:
        self._spread, self._capacity = spread, capacity
        self._damages: list[np.ndarray] = []
        self._gains: list[float] = []
        self._at = np.zeros(dimensions + 2)
        self._root = np.diag(np.append(np.full(dimensions, spread), (_LEVEL_SPREAD, _SLOPE_SPREAD)))
        self._scale = 1.0
        self._process: Process | None = None

    def __len__(self) -> int:
        return len(self._gains)

    def add(self, damages: np.ndarray, gain: float) -> None:
        """Adds one evaluated plan: ``[d]`` damages of its groups, and what it gained."""
        self._damages.append(np.asarray(damages, dtype=np.float64))
        self._gains.append(float(gain))

    def fit(self) -> None:
        """Learns from the plans added so far."""
        damages, losses = np.array(self._damages), -np.array(self._gains)
        self._scale = max(float(damages.sum(axis=1).mean()), _FLOOR)
        noise = _NOISE + _NOISE_SLOPE * (losses - losses.min())
        self._solve(damages, losses, noise)
        off = np.sqrt(np.mean(((self._formula(self._at, damages) - losses) / noise) ** 2))
        if off > 1.0:
            self._solve(damages, losses, noise * off)
        self._process = None
        if len(losses) >= _FEWEST:
            chosen = self._selection()
            rest = losses[chosen] - self._formula(self._at, damages[chosen])
            if np.abs(rest).max() > 1e-6:
                self._process = Process(np.sqrt(damages[chosen]), rest, _NOISES)

    def predict(self, damages: np.ndarray) -> np.ndarray:
        """Expected gains ``[P]`` of plans with ``[P, d]`` damages."""
        return self._gain(self._at, damages)

    def draw(self, generator: np.random.Generator, widened: float = 1.0) -> Gains:
        """A function like :meth:`predict`, with level, slope and factors drawn from the posterior.

        What is well known differs little between draws, so plans that are best by a draw are
        tried as often as they may be best (Thompson sampling).

        Args:
            generator: what is drawn from.
            widened: factor on the posterior's standard deviations.
        """
        at = self._at + widened * self._root @ generator.normal(size=len(self._at))
        return lambda damages: self._gain(at, damages)

    def _gain(self, at: np.ndarray, damages: np.ndarray) -> np.ndarray:
        rest = 0.0 if self._process is None else self._process.mean(np.sqrt(damages))
        return -(self._formula(at, damages) + rest)

    def _formula(self, at: np.ndarray, damages: np.ndarray) -> np.ndarray:
        sums = damages @ np.exp(at[:-2]) / self._scale
        return np.asarray(at[-2] + np.exp(at[-1]) * np.log(sums + _FLOOR))

    def _solve(self, damages: np.ndarray, losses: np.ndarray, noise: np.ndarray) -> None:
        """Maximum a posteriori, and a root of the posterior's covariance."""
        from scipy.optimize import least_squares

        scaled, n = damages / self._scale, damages.shape[1]
        prior = np.append(np.full(n, self._spread), (_LEVEL_SPREAD, _SLOPE_SPREAD))

        def residuals(at: np.ndarray) -> np.ndarray:
            return np.concatenate([(self._formula(at, damages) - losses) / noise, at / prior])

        def jacobian(at: np.ndarray) -> np.ndarray:
            parts, slope = scaled * np.exp(at[:n]), np.exp(at[-1])
            sums = parts.sum(axis=1, keepdims=True) + _FLOOR
            rows = np.hstack([slope * parts / sums, np.ones_like(sums), slope * np.log(sums)])
            return np.vstack([rows / noise[:, None], np.diag(1.0 / prior)])

        self._at = least_squares(residuals, self._at, jac=jacobian, max_nfev=50).x
        found = jacobian(self._at)
        self._root = np.linalg.cholesky(np.linalg.inv(found.T @ found))

    def _selection(self) -> list[int]:
        total = len(self._gains)
        if total <= self._capacity:
            return list(range(total))
        ranked = sorted(range(total), key=lambda i: -self._gains[i])
        best = set(ranked[: self._capacity // 2])
        newest = [i for i in reversed(range(total)) if i not in best]
        return sorted(best | set(newest[: self._capacity - len(best)]))
