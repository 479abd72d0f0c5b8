"""Constrained PPO on stable-baselines3: reward and cost critics, PID multipliers, a surrogate."""

from __future__ import annotations

from rlprune.search.ppo_lagrangian.agent import PPOLagrangianAgent
from rlprune.search.ppo_lagrangian.algorithm import PPOLagrangian
from rlprune.search.ppo_lagrangian.buffer import LagrangianRolloutBuffer
from rlprune.search.ppo_lagrangian.config import PPOLagrangianConfig
from rlprune.search.ppo_lagrangian.multiplier import PIDMultiplier
from rlprune.search.ppo_lagrangian.policy import MultiCriticPolicy
from rlprune.search.ppo_lagrangian.surrogate import Surrogate

__all__ = [
    "LagrangianRolloutBuffer",
    "MultiCriticPolicy",
    "PIDMultiplier",
    "PPOLagrangian",
    "PPOLagrangianAgent",
    "PPOLagrangianConfig",
    "Surrogate",
]
