"""Many episodes side by side, thought through by the policy before any is paid for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

if TYPE_CHECKING:
    import gymnasium as gym

    from rlprune_envs import KeepRatioEnv


class ProposalVecEnv(VecEnv):
    """Drafts of KeepRatio-v0's episodes as a stable-baselines3 vector environment.

    Steps before the last need no evaluation, so all episodes take them together as drafts. The
    last step is not taken here: whoever drives the episodes decides which whole action sequences
    to play in the real environment (see :class:`PPOLagrangian`).

    Args:
        env: the environment that is drafted.
        count: number of episodes.
    """

    def __init__(self, env: KeepRatioEnv, count: int) -> None:
        self.env = env
        self.render_mode = None
        super().__init__(count, env.observation_space, env.action_space)
        self._drafts = env.drafts(count)
        self._actions: np.ndarray = np.zeros(count)

    def reset(self) -> VecEnvObs:
        """First observations ``[E, size]``."""
        return self._drafts.reset()

    def step_async(self, actions: np.ndarray) -> None:
        """Takes ``[E, 1]`` actions."""
        self._actions = actions[:, 0]

    def step_wait(self) -> VecEnvStepReturn:
        """Next observations; reward 0, never done: a draft has no last step."""
        observations = self._drafts.step(self._actions)
        zeros = np.zeros(self.num_envs, dtype=np.float32)
        return observations, zeros, zeros.astype(bool), [{} for _ in range(self.num_envs)]

    def close(self) -> None:
        """Closes the drafted environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Attribute of the drafted environment, once per episode."""
        value = getattr(self.env, attr_name, None)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets an attribute of the drafted environment."""
        setattr(self.env, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Calls a method of the drafted environment, once per episode."""
        method = getattr(self.env, method_name)
        return [method(*method_args, **method_kwargs) for _ in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Drafts are never wrapped."""
        return [False for _ in self._get_indices(indices)]

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """The environment draws nothing, so there is nothing to seed."""
        return [None for _ in range(self.num_envs)]
