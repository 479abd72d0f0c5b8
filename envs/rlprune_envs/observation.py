"""The observation of KeepRatio-v0, field by field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlprune.space import Codec


@dataclass(frozen=True)
class Layout:
    """Where each field lies in the flat observation vector; every entry is within [-1, 1].

    With n decisions, m budgets and F features, in this order:

    ==============  ====  ====================================================================
    field           size  meaning at decision t
    ==============  ====  ====================================================================
    ``position``    n     one-hot index of the decision to take now; all zero after the last
    ``progress``    1     -1 at the first decision, +1 when all are taken
    ``previous``    1     the action taken before (0 at the start)
    ``features``    F     static description of the decision (``space.FEATURES``)
    ``shares``      m     2 share - 1, share: drop of each cost if this alone goes to its minimum
    ``used``        m     2 u - 1, u: cost / limit if all still to come took their minimum,
                          i.e. the part of the budget that the decisions taken have used up
    ``outlook``     m     cost / limit - 1 if all still to come took action 0:
                          negative means budget is left over, positive means overdrawn
    ==============  ====  ====================================================================

    Costs are those of the product model of :class:`rlprune.space.CostModel`; no budget is measured
    per step.
    """

    decisions: int
    budgets: int
    features: int

    @property
    def size(self) -> int:
        """Length of the observation."""
        return self.decisions + 2 + self.features + 3 * self.budgets

    def fields(self) -> dict[str, slice]:
        """Slice of each field, by name."""
        sizes = {
            "position": self.decisions,
            "progress": 1,
            "previous": 1,
            "features": self.features,
            "shares": self.budgets,
            "used": self.budgets,
            "outlook": self.budgets,
        }
        fields, start = {}, 0
        for name, size in sizes.items():
            fields[name] = slice(start, start + size)
            start += size
        return fields


class Observer:
    """Follows episodes that advance together and fills their observations.

    Args:
        codec: what actions stand for.
        count: number of episodes E.
    """

    def __init__(self, codec: Codec, count: int = 1) -> None:
        self._costs, self._space, self._anchor = codec.costs, codec.space, codec.anchor
        features, shares = self._space.features, self._costs.shares
        n, m = shares.shape
        self.layout = Layout(n, m, features.shape[1])
        self._count = count
        self._scale = np.log(self._costs.dense / self._costs.limits)
        self._tail_lowest = _tails(self._costs.log_drops(self._space.lowest))
        self._tail_anchor = _tails(self._costs.log_drops(self._anchor))
        blocks = [
            np.vstack([np.eye(n), np.zeros((1, n))]),
            np.linspace(-1.0, 1.0, n + 1)[:, None],
            np.zeros((n + 1, 1)),
            np.vstack([np.clip(features, -1.0, 1.0), np.zeros_like(features[:1])]),
            np.vstack([2.0 * shares - 1.0, np.zeros((1, m))]),
        ]
        self._static = np.hstack(blocks).astype(np.float32)
        self._previous = self.layout.fields()["previous"].start
        self.reset()

    def reset(self) -> np.ndarray:
        """Starts the episodes; returns their first observations ``[E, size]`` float32."""
        self._step = 0
        self._log_cost = np.tile(self._scale, (self._count, 1))
        self._taken = np.empty((self._count, self.layout.decisions))
        return self._observe(np.zeros(self._count))

    def advance(self, actions: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        """Records one decision of each episode.

        Args:
            actions: ``[E]`` actions in [-1, 1].
            ratios: ``[E]`` keep ratios that they stand for.

        Returns:
            Next observations ``[E, size]`` float32.
        """
        t = self._step
        self._taken[:, t] = ratios
        span = max(1.0 - float(self._space.lowest[t]), 1e-9)
        depth = np.clip((1.0 - ratios) / span, 0.0, 1.0)
        self._log_cost += np.log1p(-self._costs.shares[t] * depth[:, None]) * self._costs.slope
        self._step += 1
        return self._observe(actions)

    def _observe(self, previous: np.ndarray) -> np.ndarray:
        static = self._static[self._step]
        observation = np.empty((self._count, self.layout.size), dtype=np.float32)
        observation[:, : len(static)] = static
        observation[:, self._previous] = previous
        m = self._log_cost.shape[1]
        used, outlook = self._if_rest_took()
        observation[:, -2 * m : -m] = np.minimum(2.0 * used - 1.0, 1.0)
        observation[:, -m:] = np.clip(outlook - 1.0, -1.0, 1.0)
        return observation

    def _if_rest_took(self) -> tuple[np.ndarray, np.ndarray]:
        """``cost / limit`` ``[E, m]`` with the rest at its smallest, and at the anchor."""
        if not self._space.depth:
            used = np.exp(self._log_cost + self._tail_lowest[self._step])
            return used, np.exp(self._log_cost + self._tail_anchor[self._step])
        # What a decision inside a branch saves depends on whether the branch stays.
        whole = [np.tile(rest, (self._count, 1)) for rest in (self._space.lowest, self._anchor)]
        for ratios in whole:
            ratios[:, : self._step] = self._taken[:, : self._step]
        return self._costs.guess(whole[0]), self._costs.guess(whole[1])


class Drafts:
    """Episodes that are only thought through: the environment's observations, no evaluation.

    Gives exactly the observations that KeepRatio-v0 gives for the same actions, for many episodes
    at once.

    Args:
        codec: what actions stand for.
        count: number of episodes E.
        clamp: as in the environment.

    Attributes:
        ratios: ``[E, t]`` keep ratios of the decisions taken.
    """

    def __init__(self, codec: Codec, count: int, *, clamp: bool = False) -> None:
        self._codec, self._count, self._clamp = codec, count, clamp
        self._observer = Observer(codec, count)
        self.ratios: np.ndarray = np.empty((count, 0))

    @property
    def complete(self) -> bool:
        """Whether every decision is taken."""
        return self.ratios.shape[1] == self._observer.layout.decisions

    def reset(self) -> np.ndarray:
        """First observations ``[E, size]``."""
        self.ratios = np.empty((self._count, 0))
        return self._observer.reset()

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Takes ``[E]`` actions; returns the next observations ``[E, size]``."""
        clipped = np.clip(np.asarray(actions, dtype=np.float64), -1.0, 1.0)
        t = self.ratios.shape[1]
        ratios = self._codec.ratio_of(t, clipped)
        if self._clamp:
            pairs = zip(self.ratios, ratios, strict=True)
            ratios = np.array([self._codec.clamped(row, float(r)) for row, r in pairs])
            clipped = np.array([self._codec.action(t, float(r)) for r in ratios])
        self.ratios = np.concatenate([self.ratios, ratios[:, None]], axis=1)
        return self._observer.advance(clipped, ratios)


def _tails(log_drops: np.ndarray) -> np.ndarray:
    """``[n, m]`` per-decision terms to ``[n + 1, m]`` sums over the decisions from t on."""
    sums = np.cumsum(log_drops[::-1], axis=0)[::-1]
    return np.vstack([sums, np.zeros((1, log_drops.shape[1]))])
