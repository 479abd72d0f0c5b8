"""An environment whose evaluations count in a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from rlprune_envs import KeepRatioEnv, ProblemHandle

if TYPE_CHECKING:
    from rlprune.search.session import Session


class RecordedEnv(gym.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """KeepRatio-v0 on a session's problem: every episode's evaluation is booked there.

    For agents that train as users of Gymnasium do, whatever the algorithm.

    Args:
        session: the search.
        options: of :class:`rlprune_envs.KeepRatioEnv`.
    """

    env: KeepRatioEnv

    def __init__(self, session: Session, options: dict[str, Any]) -> None:
        handle = ProblemHandle(session.problem)
        handle.adopt(session.codec)
        super().__init__(KeepRatioEnv(handle, **options))
        self._session = session

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Resets and books the reference plan, where it is another than the session's."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._session.record(info["reference"], proposed=False)
        return observation, info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """Steps and books the evaluation that ends an episode."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated:
            self._session.record(info["evaluation"])
        return observation, reward, terminated, truncated, info
