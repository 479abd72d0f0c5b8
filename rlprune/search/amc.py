"""AMC-style search: DDPG with a budget clamp in the action (He et al., ECCV 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rlprune.search.agent import Agent, AgentConfig
from rlprune.search.isolation import isolated_randomness, one_thread
from rlprune.search.rewards import shared_rewards, squash

if TYPE_CHECKING:
    from rlprune.search.session import Session

_ENDLESS = 10**9


@dataclass(frozen=True)
class AmcConfig(AgentConfig):
    """Options of the AMC-style agent.

    Attributes:
        warmup: episodes of random actions before training (paper: 100 of 400).
        noise: standard deviation of the exploration noise after the warm-up (paper: 0.5).
        noise_decay: factor on the noise per episode after the warm-up (paper: about 0.99).
        learning_rate: Adam step size of actor and critic.
        batch_size: transitions per gradient step (paper: 64).
        updates: gradient steps per episode (paper: one per decision).
        hidden: width of the two hidden layers (paper: 300).
        soft_update: target network update rate (paper: 0.01).
    """

    name: ClassVar[str] = "amc"
    warmup: int = 40
    noise: float = 0.3
    noise_decay: float = 0.99
    learning_rate: float = 0.001
    batch_size: int = 64
    updates: int = 32
    hidden: int = 64
    soft_update: float = 0.01

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        for field in ("warmup", "batch_size", "updates", "hidden"):
            self.require(getattr(self, field) >= 1, field, "at least 1")
        for field in ("noise", "learning_rate"):
            self.require(getattr(self, field) > 0, field, "positive")
        for field in ("noise_decay", "soft_update"):
            self.require(0 < getattr(self, field) <= 1, field, "in (0, 1]")


class AmcAgent(Agent):
    """DDPG as shipped by stable-baselines3, acting in the clamped environment.

    As in the paper, each action is limited so that the groups still to come can meet the budget
    at their smallest widths, the discount is 1 and a random warm-up of at most a third of the
    evaluations comes first. The reward of an episode is copied to all its transitions, here
    standardised over the episodes so far, where the paper subtracts a moving average, and divided
    by their number, so that a return is one reward. A final projection removes what rounding or
    the estimate of a black-box cost left over.
    """

    config_class = AmcConfig
    config: AmcConfig
    env_options: ClassVar[dict[str, Any]] = {"project": True, "clamp": True}

    def run(self, session: Session) -> None:
        """Trains until the session is done."""
        from stable_baselines3 import DDPG
        from stable_baselines3.common.callbacks import BaseCallback
        from stable_baselines3.common.noise import NormalActionNoise

        c = self.config
        warmup = min(c.warmup, max(session.evaluations // 3, 1))
        noise = NormalActionNoise(np.zeros(1), np.full(1, c.noise))

        class SmallDDPG(DDPG):
            """DDPG whose gradient steps keep to one thread."""

            def train(self, gradient_steps: int, batch_size: int = 100) -> None:
                with one_thread():
                    super().train(gradient_steps, batch_size)

        kept = max(100, 4 * session.evaluations)
        finals: list[float] = []

        class Watch(BaseCallback):
            """Shares out rewards, decays the noise and stops when the session is done."""

            def _on_step(self) -> bool:
                if self.locals["dones"][0]:
                    finals.append(squash(float(self.locals["rewards"][0])))
                if session.episodes > warmup:
                    factor = c.noise_decay ** (session.episodes - warmup)
                    noise._sigma = np.full(1, c.noise * factor)
                return not session.done

            def _on_rollout_end(self) -> None:
                shared = shared_rewards(finals, session.decisions, kept)
                assert model.replay_buffer is not None
                model.replay_buffer.rewards[: len(shared), 0] = shared

        with isolated_randomness():
            model = SmallDDPG(
                "MlpPolicy",
                session.make_env(),
                learning_rate=c.learning_rate,
                buffer_size=kept * session.decisions,
                learning_starts=warmup * session.decisions,
                batch_size=c.batch_size,
                tau=c.soft_update,
                gamma=1.0,
                train_freq=(1, "episode"),
                gradient_steps=c.updates,
                action_noise=noise,
                policy_kwargs={"net_arch": [c.hidden, c.hidden]},
                seed=session.seed,
                device="cpu",
            )
            model.learn(total_timesteps=_ENDLESS, callback=Watch())
