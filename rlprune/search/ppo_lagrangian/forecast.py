"""What sensitivity curves say of plans: coordinates for the surrogate, and a predicted reward."""

from __future__ import annotations

import numpy as np

from rlprune.search.rewards import squash
from rlprune.search.session import Session


class Forecaster:
    """Describes plans to the surrogate.

    With sensitivity curves ``D_g`` a plan's coordinates are ``sqrt(D_g)``, in which damage is about
    a squared distance from the dense network, and its predicted reward is that of a quality
    proportional to ``-sum_g D_g``. Without curves the coordinates are log keep ratios, halving a
    group costing about as much wherever it starts from, and nothing is predicted.

    Args:
        session: the search.
    """

    def __init__(self, session: Session) -> None:
        self._space = session.space
        self._roots = session.codec.damage_roots
        if self._roots is not None:
            anchor = self._coordinates(session.codec.anchor[None])
            self._origin = max(float(np.square(anchor).sum()), 1e-12)

    def __call__(self, ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates ``[P, d]`` and predicted rewards ``[P]`` of ``[P, n]`` keep ratios."""
        if self._roots is None:
            least = 0.5 / self._space.sizes
            return np.log(np.maximum(ratios, least)), np.zeros(len(ratios))
        coordinates = self._coordinates(ratios)
        rewards = 1.0 - np.square(coordinates).sum(axis=1) / self._origin
        return coordinates, np.array([squash(reward) for reward in rewards])

    @property
    def dimensions(self) -> int:
        """Number of coordinates d."""
        return len(self._space) if self._roots is None else len(self._roots)

    def _coordinates(self, ratios: np.ndarray) -> np.ndarray:
        assert self._roots is not None
        widths = self._space.stretched(ratios)
        columns = [
            np.interp(widths[:, g], np.arange(len(root)), root)
            for g, root in enumerate(self._roots)
        ]
        return np.stack(columns, axis=1)
