"""Many episodes side by side, of which only some are played to their end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv


class ProposalVecEnv(DummyVecEnv):
    """Episodes advance together; the last step, the one that costs an evaluation, is optional.

    Args:
        makers: one function per environment that makes it.
    """

    def __init__(self, makers: list[Callable[[], gym.Env[Any, Any]]]) -> None:
        super().__init__(makers)

    def finish(
        self, actions: np.ndarray, chosen: list[int]
    ) -> tuple[np.ndarray, dict[int, tuple[float, dict[str, Any]]]]:
        """Takes the last step of the chosen episodes, then starts all anew.

        Args:
            actions: ``[E, 1]`` last actions of all episodes.
            chosen: indices of the episodes to finish; the others are abandoned.

        Returns:
            First observations ``[E, size]`` of the next episodes, and reward and info of each
            chosen episode.
        """
        outcomes: dict[int, tuple[float, dict[str, Any]]] = {}
        for index in chosen:
            _, reward, terminated, _, info = self.envs[index].step(actions[index])
            if not terminated:
                raise RuntimeError("finish() was called before the last decision")
            outcomes[index] = (float(reward), info)
        return self.reset(), outcomes  # type: ignore[return-value]
