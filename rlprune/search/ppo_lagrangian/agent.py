"""The PPO-Lagrangian agent: search loop, logging, saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlprune.errors import CheckpointError
from rlprune.search.agent import Agent, saved_in
from rlprune.search.isolation import OwnRandomness
from rlprune.search.ppo_lagrangian.algorithm import PPOLagrangian
from rlprune.search.ppo_lagrangian.config import PPOLagrangianConfig
from rlprune.search.ppo_lagrangian.multiplier import PIDMultiplier
from rlprune.search.ppo_lagrangian.rollout import ProposalVecEnv
from rlprune.search.ppo_lagrangian.screening import Screen
from rlprune.search.ppo_lagrangian.transfer import adapt, loosened
from rlprune.search.session import Session

_WEIGHTS_FILE = "policy.safetensors"
_ENDLESS = 10**9
_WIDEN = 1.3
_GUIDED_STD, _BLIND_STD, _START_SHARE = 0.15, 0.5, 0.8


class PPOLagrangianAgent(Agent):
    """Trains a constrained policy on the terminal reward; evaluates what its screen picks."""

    config_class = PPOLagrangianConfig
    config: PPOLagrangianConfig

    def __init__(self, config: PPOLagrangianConfig | None = None) -> None:
        super().__init__(config)
        self.model: PPOLagrangian | None = None
        self._weights: dict[str, torch.Tensor] | None = None

    def options(self) -> dict[str, Any]:
        """How plans are made of actions."""
        return {**super().options(), "project": self.config.project}

    def run(self, session: Session) -> None:
        """Trains until the session is done."""
        self.start(session)
        with OwnRandomness():
            if self.config.start is not None and self._weights is None:
                self.load(self.config.start)
            self.model = self._build(session)
            if not session.done:
                self.model.learn(total_timesteps=_ENDLESS)
            self._weights = {k: v.clone() for k, v in self.model.policy.state_dict().items()}
            self.state = {
                "multipliers": {
                    name: m.state()
                    for name, m in zip(session.budgets, self.model.multipliers, strict=True)
                }
            }

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The policy's mean action ``[1]`` for an observation.

        Raises:
            CheckpointError: the agent has neither been trained nor loaded.
        """
        if self._weights is None:
            raise CheckpointError("the agent has no policy yet: run a search or load one")
        w, n = self._weights, len(self._weights["log_std"])
        seen = torch.as_tensor(observation, dtype=torch.float32)
        hidden = torch.tanh(
            w["mlp_extractor.actor.0.weight"] @ seen[n:] + w["mlp_extractor.actor.0.bias"]
        )
        latent = torch.cat([hidden, seen[:n]])
        mean = torch.tanh(w["action_net.weight"] @ latent + w["action_net.bias"])
        return np.asarray(mean.clamp(-1.0, 1.0))

    def save(self, folder: str | Path) -> None:
        """Writes configuration, multipliers and policy weights (safetensors)."""
        from safetensors.torch import save_file

        super().save(folder)
        if self._weights is not None:
            save_file(self._weights, Path(folder) / _WEIGHTS_FILE)

    def load(self, folder: str | Path) -> None:
        """Reads a saved policy; a following search starts from it.

        The groups may be others (see :func:`rlprune.search.ppo_lagrangian.transfer.adapt`).
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        super().load(folder)
        file = saved_in(folder) / _WEIGHTS_FILE
        try:
            weights = load_file(file)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"no policy weights at {file}: {error}") from error
        self._weights = {name: value.clone() for name, value in weights.items()}

    def heir(self) -> PPOLagrangianAgent:
        """A new agent whose search starts from this one's policy and multipliers."""
        agent = super().heir()
        assert isinstance(agent, PPOLagrangianAgent)
        agent.model = None
        agent._weights = None if self._weights is None else dict(self._weights)
        return agent

    def _build(self, session: Session) -> PPOLagrangian:
        c = self.config
        env = ProposalVecEnv(session.make_env().env, c.proposals)
        multipliers = [
            PIDMultiplier(c.kp, c.ki, c.kd, 0.0, c.max_multiplier) for _ in session.budgets
        ]
        saved = self.state.get("multipliers", {})
        for name, multiplier in zip(session.budgets, multipliers, strict=True):
            if name in saved:
                multiplier.restore(saved[name])

        screen = Screen(c, session, multipliers)

        def updated(violations: np.ndarray) -> None:
            if screen.stale:
                model.policy.widen(_WIDEN)
            limits = session.codec.costs.limits
            for k, name in enumerate(session.budgets):
                session.log(f"constraint/{name}/value", float((1 + violations[k]) * limits[k]))
                session.log(f"constraint/{name}/limit", float(limits[k]))
                session.log(f"constraint/{name}/lambda", multipliers[k].value)

        model = PPOLagrangian(
            env,
            judge=screen,
            multipliers=multipliers,
            horizon=len(session.space),
            hidden=c.hidden,
            std=(self._first_std(session), c.min_std),
            seed=session.seed,
            on_update=updated,
            learning_rate=c.learning_rate,
            n_epochs=c.epochs,
            batch_size=len(session.space) * c.proposals,
            clip_range=c.clip_range,
            ent_coef=c.entropy,
        )
        if self._weights is not None:
            self._warm_start(model, session)
        return model

    def _first_std(self, session: Session) -> float:
        if self.config.initial_std is not None:
            return self.config.initial_std
        guided = session.codec.damage_roots is not None
        return _GUIDED_STD if guided else _BLIND_STD

    def _warm_start(self, model: PPOLagrangian, session: Session) -> None:
        assert self._weights is not None
        where = self.origin or "the earlier search"
        fitted = adapt(self._weights, model.policy.state_dict(), where)
        std = self.config.start_std or _START_SHARE * self._first_std(session)
        model.policy.load_state_dict(loosened(fitted, std))
