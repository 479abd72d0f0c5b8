"""The observation of KeepRatio-v0, field by field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlprune_envs.setting import Setting


@dataclass(frozen=True)
class Layout:
    """Where each field lies in the flat observation vector; every entry is within [-1, 1].

    With n decisions, m budgets and F features, in this order:

    ==============  ====  ====================================================================
    field           size  meaning at decision t
    ==============  ====  ====================================================================
    ``position``    n     one-hot index of the group to decide now; all zero after the last
    ``progress``    1     -1 at the first decision, +1 when all are taken
    ``previous``    1     the action taken for the previous group (0 at the start)
    ``features``    F     static description of the group (``problem.feature_names``)
    ``shares``      m     2 share - 1, share: drop of each cost if this group goes to its minimum
    ``used``        m     2 u - 1, u: cost / limit if all groups still to come took their minimum,
                          i.e. the part of the budget that the decisions taken have used up
    ``outlook``     m     cost / limit - 1 if all groups still to come took action 0:
                          negative means budget is left over, positive means overdrawn
    ==============  ====  ====================================================================

    Costs are those of the cheap model of :class:`Setting`; no budget is measured per step.
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
        setting: constants of the problem.
        count: number of episodes E.
    """

    def __init__(self, setting: Setting, count: int = 1) -> None:
        n, m = setting.shares.shape
        self.layout = Layout(n, m, setting.features.shape[1])
        self._setting = setting
        self._count = count
        self._scale = np.log(setting.dense_costs / setting.limits)
        self._tail_lowest = _tails(setting.log_drops(setting.lowest))
        self._tail_anchor = _tails(setting.log_drops(setting.anchor))
        blocks = [
            np.vstack([np.eye(n), np.zeros((1, n))]),
            np.linspace(-1.0, 1.0, n + 1)[:, None],
            np.zeros((n + 1, 1)),
            np.vstack([np.clip(setting.features, -1.0, 1.0), np.zeros_like(setting.features[:1])]),
            np.vstack([2.0 * setting.shares - 1.0, np.zeros((1, m))]),
        ]
        self._static = np.hstack(blocks).astype(np.float32)
        self._previous = self.layout.fields()["previous"].start
        self.reset()

    def reset(self) -> np.ndarray:
        """Starts the episodes; returns their first observations ``[E, size]`` float32."""
        self._step = 0
        self._log_cost = np.tile(self._scale, (self._count, 1))
        return self._observe(np.zeros(self._count))

    def advance(self, actions: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        """Records one decision of each episode.

        Args:
            actions: ``[E]`` actions in [-1, 1].
            ratios: ``[E]`` keep ratios that they stand for.

        Returns:
            Next observations ``[E, size]`` float32.
        """
        s, t = self._setting, self._step
        span = max(1.0 - float(s.lowest[t]), 1e-9)
        depth = np.clip((1.0 - ratios) / span, 0.0, 1.0)
        self._log_cost += np.log1p(-s.shares[t] * depth[:, None]) * s.slope
        self._step += 1
        return self._observe(actions)

    def _observe(self, previous: np.ndarray) -> np.ndarray:
        static = self._static[self._step]
        observation = np.empty((self._count, self.layout.size), dtype=np.float32)
        observation[:, : len(static)] = static
        observation[:, self._previous] = previous
        m = self._log_cost.shape[1]
        used = np.exp(self._log_cost + self._tail_lowest[self._step])
        outlook = np.exp(self._log_cost + self._tail_anchor[self._step])
        observation[:, -2 * m : -m] = np.minimum(2.0 * used - 1.0, 1.0)
        observation[:, -m:] = np.clip(outlook - 1.0, -1.0, 1.0)
        return observation


class Drafts:
    """Episodes that are only thought through: the environment's observations without its last step.

    Gives exactly the observations that KeepRatio-v0 (without ``clamp``) gives for the same
    actions, for many episodes at once. No draft is ever evaluated.

    Args:
        setting: constants of the problem.
        count: number of episodes E.
    """

    def __init__(self, setting: Setting, count: int) -> None:
        self._setting = setting
        self._observer = Observer(setting, count)
        self._step = 0

    def reset(self) -> np.ndarray:
        """First observations ``[E, size]``."""
        self._step = 0
        return self._observer.reset()

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Takes ``[E]`` actions; returns the next observations ``[E, size]``."""
        clipped = np.clip(np.asarray(actions, dtype=np.float64), -1.0, 1.0)
        s, t = self._setting, self._step
        span = np.where(clipped >= 0, s.highest[t] - s.anchor[t], s.anchor[t] - s.lowest[t])
        self._step += 1
        return self._observer.advance(clipped, s.anchor[t] + clipped * span)


def _tails(log_drops: np.ndarray) -> np.ndarray:
    """``[n, m]`` per-group terms to ``[n + 1, m]`` sums over the groups from t on."""
    sums = np.cumsum(log_drops[::-1], axis=0)[::-1]
    return np.vstack([sums, np.zeros((1, log_drops.shape[1]))])
