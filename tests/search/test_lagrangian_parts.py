"""PPO-Lagrangian's arithmetic, recomputed by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlprune.errors import ConfigError
from rlprune.search.ppo_lagrangian import (
    LagrangianRolloutBuffer,
    MultiCriticPolicy,
    PIDMultiplier,
    Surrogate,
)
from rlprune.search.ppo_lagrangian.buffer import generalized_advantages, mixed_advantage


def test_terminal_cost_advantages_are_monte_carlo_by_hand() -> None:
    signals = np.zeros((3, 1, 2))
    signals[-1, 0] = [2.0, 0.5]
    values = np.array([[[0.5, 0.1]], [[1.0, 0.2]], [[1.5, 0.3]]])
    starts = np.array([[1.0], [0.0], [0.0]])
    advantages = generalized_advantages(
        signals, values, starts, np.zeros((1, 2)), np.ones(1), gamma=1.0, gae_lambda=1.0
    )
    np.testing.assert_allclose(advantages[:, 0, 0], [1.5, 1.0, 0.5])
    np.testing.assert_allclose(advantages[:, 0, 1], [0.4, 0.3, 0.2])


def test_generalised_advantages_by_hand_across_an_episode_boundary() -> None:
    gamma, lam = 0.9, 0.8
    signals = np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    values = np.array([0.5, 0.6, 0.7]).reshape(3, 1, 1)
    starts = np.array([[1.0], [0.0], [1.0]])
    last = 3.0 + gamma * 0.4 - 0.7
    second = 2.0 - 0.6
    first = 1.0 + gamma * 0.6 - 0.5 + gamma * lam * second
    advantages = generalized_advantages(
        signals, values, starts, np.full((1, 1), 0.4), np.zeros(1), gamma, lam
    )
    np.testing.assert_allclose(advantages[:, 0, 0], [first, second, last])


def test_mixed_advantage_by_hand() -> None:
    advantages = np.array([[[1.0, 0.5, 0.0]], [[3.0, 0.5, 1.0]]])
    raw = np.array([(1.0 - 2 * 0.5) / 6.0, (3.0 - 2 * 0.5 - 3 * 1.0) / 6.0])
    expected = (raw - raw.mean()) / raw.std()
    mixed = mixed_advantage(advantages, np.array([2.0, 3.0]))
    np.testing.assert_allclose(mixed[:, 0], expected, rtol=1e-6)


def test_without_multipliers_the_mixture_is_the_standardised_reward_advantage() -> None:
    advantages = np.random.default_rng(0).normal(size=(4, 5, 3))
    reward = advantages[..., 0]
    np.testing.assert_allclose(
        mixed_advantage(advantages, np.zeros(2)),
        (reward - reward.mean()) / reward.std(),
        rtol=1e-5,
    )


def test_the_fused_heads_answer_as_the_policy_s_own_forward_does() -> None:
    n, features, costs = 5, 4, 2
    policy = MultiCriticPolicy(
        spaces.Box(-1, 1, (n + features,)), spaces.Box(-1, 1, (1,)), lambda _: 0.01,
        positions=n, n_costs=costs, hidden=8,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        obs = torch.rand(7, n + features, generator=generator)
        obs[:, :n] = torch.eye(n)[torch.arange(7) % n]
        actions, values, log_prob = policy.sample(obs, generator)
        distribution = policy.get_distribution(obs)
        torch.testing.assert_close(values, policy.predict_values(obs))
        torch.testing.assert_close(log_prob, distribution.log_prob(actions))
        again, logs, entropy = policy.evaluate_actions(obs, actions)
        torch.testing.assert_close(again, values)
        torch.testing.assert_close(logs, log_prob)
        torch.testing.assert_close(entropy, distribution.entropy())


def test_a_minibatch_of_everything_shares_the_rollout_s_memory_and_order() -> None:
    buffer = LagrangianRolloutBuffer(3, spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1,)), n_envs=2)
    for step in range(3):
        buffer.add(
            np.full((2, 2), float(step)), np.zeros((2, 1)), np.zeros(2), np.zeros(2),
            torch.zeros(2, 2), torch.zeros(2),
        )  # fmt: skip
    buffer.compute_returns_and_advantage(torch.zeros(2, 2), np.ones(2))
    (whole,) = buffer.get(6)
    assert whole.observations.data_ptr() == torch.as_tensor(buffer.observations).data_ptr()
    parts = torch.cat([part.observations for part in buffer.get(4)])
    assert sorted(parts[:, 0].tolist()) == sorted(whole.observations[:, 0].tolist())


def test_the_buffer_keeps_every_critic_apart() -> None:
    buffer = LagrangianRolloutBuffer(
        2, spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (1,)), "cpu", n_envs=4, n_costs=2
    )
    for step in range(2):
        buffer.add(
            np.zeros((4, 3)), np.zeros((4, 1)), np.full(4, float(step)), np.zeros(4),
            torch.tensor([[0.1, 0.2, 0.3]]).repeat(4, 1), torch.zeros(4),
            np.tile([5.0, 7.0], (4, 1)) * step,
        )  # fmt: skip
    buffer.compute_returns_and_advantage(torch.zeros(4, 3), np.ones(4))
    np.testing.assert_allclose(buffer.returns, np.tile([1.0, 5.0, 7.0], (2, 4, 1)), rtol=1e-6)
    buffer.mix(np.array([1.0, 0.0]))
    sample = next(iter(buffer.get(8)))
    assert sample.observations.shape == (8, 3)
    assert sample.advantages.shape == (8,)
    assert sample.returns.shape == sample.old_values.shape == (24,)


def test_multiplier_by_hand() -> None:
    multiplier = PIDMultiplier(kp=1.0, ki=0.5, kd=2.0)
    assert multiplier.update(0.2) == pytest.approx(1.0 * 0.2 + 0.5 * 0.2)
    assert multiplier.update(0.3) == pytest.approx(0.3 + 0.5 * 0.5 + 2.0 * 0.1)
    assert multiplier.update(0.1) == pytest.approx(0.1 + 0.5 * 0.6)


def test_multiplier_rises_while_infeasible_and_falls_when_feasible() -> None:
    multiplier = PIDMultiplier()
    rising = [multiplier.update(0.1) for _ in range(10)]
    assert all(b > a for a, b in itertools.pairwise(rising))
    falling = [multiplier.update(-0.1) for _ in range(30)]
    assert all(b < a or b == 0 for a, b in itertools.pairwise(falling))
    assert falling[-1] == 0.0


def test_anti_windup_lets_the_multiplier_move_at_once_after_long_saturation() -> None:
    multiplier = PIDMultiplier(kp=0.0, ki=1.0, kd=0.0, maximum=2.0)
    for _ in range(1000):
        multiplier.update(1.0)
    assert multiplier.value == 2.0
    assert multiplier.update(-0.5) == pytest.approx(1.5)
    for _ in range(1000):
        multiplier.update(-1.0)
    assert multiplier.update(0.5) == pytest.approx(0.5)


def test_multiplier_refuses_negative_gains() -> None:
    with pytest.raises(ConfigError, match="must not be negative"):
        PIDMultiplier(kp=-1.0)


def test_surrogate_learns_which_groups_matter_and_knows_what_it_does_not_know() -> None:
    rng = np.random.default_rng(0)
    damages = rng.uniform(0.1, 2.0, (60, 4))
    damages[:, 3] = 0.0
    weights = np.array([1.0, 2.0, 0.2, 0.5])

    def truth(rows: np.ndarray) -> np.ndarray:
        return -np.log(rows @ weights)

    surrogate = Surrogate(4)
    for row, gain in zip(damages, truth(damages), strict=True):
        surrogate.add(row, float(gain))
    surrogate.fit()
    fresh = rng.uniform(0.2, 1.5, (50, 4)) * [1, 1, 1, 0]
    assert np.abs(surrogate.predict(fresh) - truth(fresh)).max() < 0.1
    probes = np.array([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    generator = np.random.default_rng(1)
    spread = np.array([surrogate.draw(generator)(probes) for _ in range(100)]).std(axis=0)
    assert spread[1] > 3 * spread[0]
