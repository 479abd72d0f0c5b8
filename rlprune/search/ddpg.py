"""stable-baselines3's DDPG, one drafted episode at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3 import DDPG

from rlprune.search.isolation import one_thread
from rlprune_envs.observation import Drafts


class SmallDDPG(DDPG):
    """DDPG whose episodes end when their evaluation is known, and whose steps keep to one thread.

    :meth:`draft` and :meth:`learn_from_draft` in turn do what ``learn`` does with episodic
    training, where the environment would have to be left in the middle of a step.
    """

    def draft(self, drafts: Drafts) -> None:
        """Takes every decision of an episode with the exploring policy.

        Args:
            drafts: a single episode; holds the ratios chosen afterwards.
        """
        self.policy.set_training_mode(False)
        self._episode: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._last_obs = seen = drafts.reset()
        while not drafts.complete:
            action, stored = self._sample_action(self.learning_starts, self.action_noise)
            following = drafts.step(action[:, 0])
            self.num_timesteps += 1
            self._episode.append((seen, following, stored))
            self._last_obs = seen = following

    def learn_from_draft(self, rewards: np.ndarray) -> None:
        """Stores the drafted episode and takes its gradient steps.

        Args:
            rewards: of all transitions in the buffer, this episode's included.
        """
        assert self.replay_buffer is not None
        last = len(self._episode) - 1
        nothing: list[dict[str, Any]] = [{}]
        for step, (seen, following, stored) in enumerate(self._episode):
            zero, done = np.zeros(1, dtype=np.float32), np.array([step == last])
            self.replay_buffer.add(seen, following, stored, zero, done, nothing)
        self.replay_buffer.rewards[: len(rewards), 0] = rewards
        if self.num_timesteps > self.learning_starts:
            self.train(self.gradient_steps, self.batch_size)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """See :class:`stable_baselines3.DDPG`."""
        with one_thread():
            super().train(gradient_steps, batch_size)
