"""What is known of the damage that plans do before any is evaluated."""

from __future__ import annotations

import numpy as np

from rlprune.search.session import Session


class Forecaster:
    """The damage that every group alone does to the network, for the surrogate.

    With sensitivity curves it is theirs. Without them it is ``1 / ratio - 1``: halving a group
    costs about as much again wherever it starts from.

    Args:
        session: the search.

    Attributes:
        informed: whether there are curves.
    """

    def __init__(self, session: Session) -> None:
        self._space = session.space
        self._roots = session.codec.damage_roots
        self.informed = self._roots is not None

    def __call__(self, ratios: np.ndarray) -> np.ndarray:
        """Damages ``[P, d]``, not negative, of ``[P, n]`` keep ratios."""
        if self._roots is None:
            return 1.0 / np.clip(ratios, 0.5 / self._space.sizes, 1.0) - 1.0
        widths = self._space.stretched(ratios)
        columns = [
            np.interp(widths[:, g], np.arange(len(root)), root)
            for g, root in enumerate(self._roots)
        ]
        return np.square(np.stack(columns, axis=1))

    @property
    def dimensions(self) -> int:
        """Number of damages d."""
        return len(self._space) if self._roots is None else len(self._roots)
