"""Rollout buffer with one value head and one return per critic."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from stable_baselines3.common.vec_env import VecNormalize


def generalized_advantages(
    signals: np.ndarray,
    values: np.ndarray,
    episode_starts: np.ndarray,
    last_values: np.ndarray,
    dones: np.ndarray,
    gamma: float,
    gae_lambda: float,
) -> np.ndarray:
    """Generalised advantage estimation (Schulman et al., 2016, Eq. 16) for several signals.

    Args:
        signals: ``[T, E, K]`` reward and costs per step.
        values: ``[T, E, K]`` value estimates.
        episode_starts: ``[T, E]`` 1 where an episode begins.
        last_values: ``[E, K]`` values after the last step.
        dones: ``[E]`` whether the last step ended an episode.
        gamma: discount.
        gae_lambda: trade-off; 1 gives Monte-Carlo advantages.

    Returns:
        ``[T, E, K]`` advantages.
    """
    advantages = np.zeros_like(values)
    running = np.zeros_like(last_values)
    for step in reversed(range(len(signals))):
        last = step == len(signals) - 1
        alive = 1.0 - (dones.astype(np.float32) if last else episode_starts[step + 1])
        following = last_values if last else values[step + 1]
        delta = signals[step] + gamma * following * alive[:, None] - values[step]
        running = delta + gamma * gae_lambda * alive[:, None] * running
        advantages[step] = running
    return advantages


def mixed_advantage(advantages: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
    """``(A_r - sum_k lambda_k A_k) / (1 + sum_k lambda_k)``, standardised over the rollout.

    Args:
        advantages: ``[T, E, 1 + m]``, reward first.
        multipliers: ``[m]``.

    Returns:
        ``[T, E]`` with mean 0 and standard deviation 1.
    """
    mixed = (advantages[..., 0] - advantages[..., 1:] @ multipliers) / (1.0 + multipliers.sum())
    return np.asarray((mixed - mixed.mean()) / (mixed.std() + 1e-8))


class LagrangianRolloutBuffer(RolloutBuffer):
    """Stores reward and cost signals side by side as ``K = 1 + n_costs`` columns.

    ``values`` and ``returns`` are ``[T, E, K]``; ``advantages`` is ``[T, E]`` and holds the mixed
    advantage once :meth:`mix` was called. Samples carry values and returns flattened over K, as
    the policy returns them, so that PPO's own loss trains all critics.

    Args:
        n_costs: number of budgets.
        seed: orders the minibatches.
        See :class:`stable_baselines3.common.buffers.RolloutBuffer` for the others.
    """

    costs: np.ndarray

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        gae_lambda: float = 1.0,
        gamma: float = 1.0,
        n_envs: int = 1,
        n_costs: int = 1,
        seed: int = 0,
    ) -> None:
        self.n_costs = n_costs
        self._order = np.random.default_rng(seed)
        super().__init__(
            buffer_size, observation_space, action_space, device, gae_lambda, gamma, n_envs
        )

    def reset(self) -> None:
        """Empties the buffer."""
        super().reset()
        shape = (self.buffer_size, self.n_envs)
        self.values = np.zeros((*shape, 1 + self.n_costs), dtype=np.float32)
        self.returns = np.zeros_like(self.values)
        self.costs = np.zeros((*shape, self.n_costs), dtype=np.float32)
        self.all_advantages = np.zeros_like(self.values)

    def add(
        self,
        obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        episode_start: np.ndarray,
        value: torch.Tensor,
        log_prob: torch.Tensor,
        cost: np.ndarray | None = None,
    ) -> None:
        """Adds one step of all environments; ``value`` is ``[E, K]``, ``cost`` ``[E, K - 1]``."""
        self.observations[self.pos] = obs
        self.actions[self.pos] = action.reshape((self.n_envs, self.action_dim))
        self.rewards[self.pos] = reward
        self.episode_starts[self.pos] = episode_start
        self.values[self.pos] = value.cpu().numpy()
        self.log_probs[self.pos] = log_prob.cpu().numpy()
        if cost is not None:
            self.costs[self.pos] = cost
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: np.ndarray) -> None:
        """Advantages and returns of every critic; ``last_values`` is ``[E, K]``."""
        signals = np.concatenate([self.rewards[..., None], self.costs], axis=-1)
        self.all_advantages = generalized_advantages(
            signals,
            self.values,
            self.episode_starts,
            last_values.cpu().numpy(),
            dones,
            self.gamma,
            self.gae_lambda,
        )
        self.returns = self.all_advantages + self.values

    def mix(self, multipliers: np.ndarray) -> None:
        """Sets ``advantages`` to the standardised mixture for the given multipliers ``[m]``."""
        self.advantages = mixed_advantage(self.all_advantages, multipliers).astype(np.float32)

    def get(self, batch_size: int | None = None) -> Any:
        """Yields minibatches in an order drawn from the buffer's own generator.

        One that holds everything keeps the order of the rollout and shares its memory.
        """
        total = self.buffer_size * self.n_envs
        if not self.generator_ready:
            for name in (
                "observations", "actions", "values", "log_probs", "advantages", "returns"
            ):  # fmt: skip
                setattr(self, name, self.swap_and_flatten(getattr(self, name)))
            self.generator_ready = True
        size = total if batch_size is None else batch_size
        if size >= total:
            yield self._get_samples(slice(None))
            return
        order = self._order.permutation(total)
        for start in range(0, total, size):
            yield self._get_samples(order[start : start + size])

    def _get_samples(
        self, batch_inds: Any, env: VecNormalize | None = None
    ) -> RolloutBufferSamples:
        data = (
            self.observations[batch_inds],
            self.actions[batch_inds].astype(np.float32, copy=False),
            self.values[batch_inds].reshape(-1),
            self.log_probs[batch_inds].reshape(-1),
            self.advantages[batch_inds].reshape(-1),
            self.returns[batch_inds].reshape(-1),
        )
        return RolloutBufferSamples(*map(torch.as_tensor, data))
