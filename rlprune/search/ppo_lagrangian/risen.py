"""What is learned of budgets that rise as networks shrink, which nothing foretells."""

from __future__ import annotations

import numpy as np

from rlprune.problem import Evaluation

_FEWEST = 4
_RIDGE = 1.0
SHUN = 100.0
"""What a forecast violation weighs against gain in the choice of plans."""


class Risen:
    """Violations as lines over the predicted damages of the decisions, by ridge regression.

    Args:
        names: Of all budgets.
        rising: Which of them rise, ``[m]`` bool.
    """

    def __init__(self, names: tuple[str, ...], rising: np.ndarray) -> None:
        self.columns = np.flatnonzero(rising)
        self._names = [names[k] for k in self.columns]
        self._damages: list[np.ndarray] = []
        self._violations: list[list[float]] = []
        self._line: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, damages: np.ndarray, evaluation: Evaluation) -> None:
        """Take in ``[n]`` damages of an evaluated plan."""
        if self._names:
            self._damages.append(np.asarray(damages, dtype=np.float64))
            self._violations.append([evaluation.violations[name] for name in self._names])
            self._line = None

    def predict(self, damages: np.ndarray) -> np.ndarray:
        """Violations ``[P, rising]`` at damages ``[P, n]``; 0 while too little is known."""
        if len(self._damages) < _FEWEST:
            return np.zeros((len(damages), len(self._names)))
        if self._line is None:
            self._fit()
        assert self._line is not None
        slope, offset = self._line
        return np.asarray(damages @ slope + offset)

    def owed(self, damages: np.ndarray) -> np.ndarray:
        """What plans lose in the choice for violations that are forecast, ``[P]``."""
        return np.asarray(SHUN * np.maximum(self.predict(damages), 0.0).sum(axis=1))

    def _fit(self) -> None:
        x, y = np.array(self._damages), np.array(self._violations)
        middle, level = x.mean(axis=0), y.mean(axis=0)
        scale = x.std(axis=0) + 1e-9
        z = (x - middle) / scale
        gram = z.T @ z + _RIDGE * np.eye(z.shape[1])
        slope = np.linalg.solve(gram, z.T @ (y - level)) / scale[:, None]
        self._line = slope, level - middle @ slope
