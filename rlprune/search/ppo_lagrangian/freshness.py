"""Plans that no evaluation was spent on yet: which proposals lead to one, where others lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from rlprune.plan import Plan
from rlprune.search.session import Session

_SPREADS = (0.05, 0.1, 0.2, 0.4, 0.8)
_DRAWS = 64
_LAST_DRAWS = 1024


class Freshness:
    """Finds action sequences whose plan is new to the search.

    Args:
        session: knows the plans that were evaluated.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._destination = session.codec.likely
        self._rng = np.random.default_rng(session.seed + 2)

    def first(
        self, sequences: np.ndarray, orders: Iterable[Iterable[int]]
    ) -> tuple[list[int], set[Plan]]:
        """For each order the first sequence whose plan is new and not taken by an earlier order.

        Args:
            sequences: ``[P, n]`` actions.
            orders: indices of sequences, most wanted first.

        Returns:
            Indices of the sequences, fewer than there are orders where nothing new is left, and
            the plans they lead to.
        """
        plans: dict[int, Plan] = {}
        chosen: list[int] = []
        taken: set[Plan] = set()
        for order in orders:
            for index in order:
                if index not in plans:
                    plans[index] = self._destination(sequences[index])
                if plans[index] not in taken and not self._session.seen(plans[index]):
                    chosen.append(index)
                    taken.add(plans[index])
                    break
        return chosen, taken

    def wander(
        self,
        sequences: np.ndarray,
        count: int,
        taken: set[Plan],
        score: Callable[[np.ndarray], np.ndarray],
    ) -> list[np.ndarray]:
        """Draws ever farther from the given sequences until new plans come up.

        The last draws are uniform over all actions, so that nothing found means that there is
        nothing left to find, as far as a thousand draws can tell.

        Args:
            sequences: ``[P, n]`` actions to start from.
            count: new plans wanted.
            taken: plans that do not count as new.
            score: ``[P, n]`` actions -> ``[P]``, how much each is wanted.

        Returns:
            Up to ``count`` action sequences ``[n]`` that lead to different new plans.
        """
        found: list[np.ndarray] = []
        taken = set(taken)
        for spread in (*_SPREADS, None):
            drawn = self._draw(sequences, spread)
            for index in np.argsort(-score(drawn), kind="stable"):
                plan = self._destination(drawn[index])
                if plan not in taken and not self._session.seen(plan):
                    found.append(drawn[index])
                    taken.add(plan)
                if len(found) == count:
                    return found
        return found

    def _draw(self, sequences: np.ndarray, spread: float | None) -> np.ndarray:
        n = sequences.shape[1]
        if spread is None:
            drawn = self._rng.uniform(-1.0, 1.0, (_LAST_DRAWS, n))
        else:
            centres = sequences[self._rng.integers(len(sequences), size=_DRAWS)]
            drawn = np.clip(centres + self._rng.normal(0.0, spread, (_DRAWS, n)), -1.0, 1.0)
        return drawn.astype(np.float32)
