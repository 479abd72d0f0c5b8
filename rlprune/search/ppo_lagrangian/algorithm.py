"""PPO-Lagrangian on an unforked stable-baselines3 PPO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from rlprune.search.isolation import one_thread
from rlprune.search.ppo_lagrangian.buffer import LagrangianRolloutBuffer
from rlprune.search.ppo_lagrangian.multiplier import PIDMultiplier
from rlprune.search.ppo_lagrangian.policy import MultiCriticPolicy
from rlprune.search.ppo_lagrangian.rollout import ProposalVecEnv

_MOST = 1.0

Verdict = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Action sequences ``[E, n]``, rewards ``[E]``, violations ``[E, m]``."""

_Step = tuple[np.ndarray, np.ndarray, torch.Tensor, torch.Tensor]


class PPOLagrangian(PPO):
    """Constrained PPO for episodes of fixed length with a terminal reward and terminal costs.

    Maximises the reward subject to ``E[violation_k] <= 0`` by the Lagrangian
    ``A = (A_r - sum lambda_k A_k) / (1 + sum lambda_k)`` with gamma = lambda_GAE = 1. The
    multipliers follow the rollout's mean violations, and a standard deviation more so that
    most episodes meet the budgets, before the policy is updated.

    A ``judge`` decides how each rollout ends: it gets the whole action sequences ``[E, n]``, may
    put better ones in the place of some, plays those it wants evaluated, and returns the sequences
    with rewards ``[E]`` and violations ``[E, m]``, or None to stop. The policy learns from what it
    gets back (expert iteration: Anthony, Tian, Barber, NeurIPS 2017).

    Args:
        env: environments that advance together; one episode of each is a rollout.
        judge: see above.
        multipliers: one controller per budget, in the order of the violations.
        on_update: called after every policy update with the mean violations ``[m]``.
        horizon: episode length n.
        hidden: width of the hidden layers.
        std: first and smallest standard deviation of the actions.
        seed: seed of weights, actions and minibatches.
        **kwargs: passed to :class:`stable_baselines3.PPO`.
    """

    policy: MultiCriticPolicy
    rollout_buffer: LagrangianRolloutBuffer

    def __init__(
        self,
        env: ProposalVecEnv,
        *,
        judge: Callable[[np.ndarray], Verdict | None],
        multipliers: list[PIDMultiplier],
        horizon: int,
        hidden: int = 32,
        std: tuple[float, float] = (0.5, 0.03),
        seed: int = 0,
        on_update: Callable[[np.ndarray], None] | None = None,
        **kwargs: Any,
    ) -> None:
        self.judge = judge
        self.multipliers = multipliers
        self.on_update = on_update
        self.noise = torch.Generator().manual_seed(seed)
        super().__init__(
            MultiCriticPolicy,
            env,
            n_steps=horizon,
            gamma=1.0,
            gae_lambda=1.0,
            normalize_advantage=False,
            rollout_buffer_class=LagrangianRolloutBuffer,
            rollout_buffer_kwargs={"n_costs": len(multipliers), "seed": seed},
            policy_kwargs={
                "positions": horizon,
                "n_costs": len(multipliers),
                "hidden": hidden,
                "log_std_init": float(np.log(std[0])),
                "std_range": (std[1], 1.0),
                "optimizer_kwargs": {"eps": 1e-5, "fused": True},
            },
            device="cpu",
            seed=seed,
            **kwargs,
        )

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Plays one episode per environment and fills the buffer; False ends the training."""
        assert isinstance(env, ProposalVecEnv)
        assert isinstance(rollout_buffer, LagrangianRolloutBuffer)
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        callback.on_rollout_start()
        sampled = self._play(env, None)
        sequences = np.stack([taken[:, 0] for _, taken, _, _ in sampled], axis=1)
        verdict = self.judge(np.clip(sequences, -1.0, 1.0))
        self.num_timesteps += env.num_envs * n_rollout_steps
        if verdict is None:
            return False
        better, rewards, violations = verdict
        changed = (better != np.clip(sequences, -1.0, 1.0)).any(axis=1)
        steps = sampled
        if changed.any():
            sequences[changed] = better[changed]
            steps = self._play(env, sequences)
        start = np.ones(env.num_envs, dtype=np.float32)
        for step, (seen, taken, values, log_prob) in enumerate(steps):
            last = step == n_rollout_steps - 1
            rollout_buffer.add(
                seen,
                taken,
                rewards if last else np.zeros_like(rewards),
                start if step == 0 else np.zeros_like(start),
                values,
                log_prob,
                violations if last else None,
            )
        rollout_buffer.compute_returns_and_advantage(
            torch.zeros(env.num_envs, 1 + len(self.multipliers)), np.ones(env.num_envs)
        )
        callback.on_rollout_end()
        return True

    def _play(self, env: ProposalVecEnv, sequences: np.ndarray | None) -> list[_Step]:
        """One episode per environment: of given actions ``[E, n]``, or as the policy samples them.

        Returns:
            Observations, actions ``[E, 1]``, values and log-probabilities by step.
        """
        obs = np.asarray(env.reset())
        steps: list[_Step] = []
        for step in range(self.n_steps):
            seen = torch.as_tensor(obs)
            with torch.no_grad(), one_thread():
                if sequences is None:
                    actions, values, log_prob = self.policy.sample(seen, self.noise)
                else:
                    actions = torch.as_tensor(sequences[:, step : step + 1])
                    values, log_prob, _ = self.policy.evaluate_actions(seen, actions)
            steps.append((obs, actions.numpy(), values, log_prob))
            if step < self.n_steps - 1:
                obs = np.asarray(env.step(np.clip(actions.numpy(), -1.0, 1.0))[0])
        self._last_obs = obs
        return steps

    def train(self) -> None:
        """Updates the multipliers, mixes the advantages, then runs PPO's own update."""
        asked = self.rollout_buffer.costs[-1]
        violations = asked.mean(axis=0)
        most = violations + _MOST * asked.std(axis=0)
        for multiplier, violation in zip(self.multipliers, most, strict=True):
            multiplier.update(float(violation))
        self.rollout_buffer.mix(np.array([m.value for m in self.multipliers]))
        with one_thread():
            super().train()
        if self.on_update is not None:
            self.on_update(violations)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "judge", "on_update", "noise"]
