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
        setting = session.env.get_wrapper_attr("setting")
        self._dense = setting.dense
        self._roots = setting.damage_roots
        if self._roots is not None:
            anchor = self._coordinates(setting.anchor[None])
            self._origin = max(float(np.square(anchor).sum()), 1e-12)

    def __call__(self, ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates ``[P, n]`` and predicted rewards ``[P]`` of ``[P, n]`` keep ratios."""
        if self._roots is None:
            return np.log(ratios), np.zeros(len(ratios))
        coordinates = self._coordinates(ratios)
        rewards = 1.0 - np.square(coordinates).sum(axis=1) / self._origin
        return coordinates, np.array([squash(reward) for reward in rewards])

    def _coordinates(self, ratios: np.ndarray) -> np.ndarray:
        assert self._roots is not None
        widths = ratios * self._dense
        columns = [
            np.interp(widths[:, g], np.arange(len(root)), root)
            for g, root in enumerate(self._roots)
        ]
        return np.stack(columns, axis=1)
