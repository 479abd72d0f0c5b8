"""AMC-style search: DDPG with a budget clamp in the action (He et al., ECCV 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from rlprune.search.agent import Agent, AgentConfig
from rlprune.search.isolation import OwnRandomness
from rlprune.search.rewards import shared_rewards, squash

if TYPE_CHECKING:
    from rlprune.plan import Plan
    from rlprune.problem import Evaluation
    from rlprune.search.session import Session


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

    Episodes are drafted one at a time; the evaluation of the plan one ends in is what it is told.
    """

    config_class = AmcConfig
    config: AmcConfig

    def start(self, session: Session) -> None:
        """Makes the networks."""
        from stable_baselines3.common.logger import Logger
        from stable_baselines3.common.noise import NormalActionNoise

        from rlprune.search.ddpg import SmallDDPG

        super().start(session)
        c, n = self.config, len(session.space)
        self._warmup = min(c.warmup, max(session.evaluations // 3, 1))
        self._noise = NormalActionNoise(np.zeros(1), np.full(1, c.noise))
        self._kept = max(100, 4 * session.evaluations)
        self._finals: list[float] = []
        self._randomness = OwnRandomness()
        env = session.make_env(clamp=True)
        self._drafts = env.env.drafts(1)
        with self._randomness:
            self._model = SmallDDPG(
                "MlpPolicy",
                env,
                learning_rate=c.learning_rate,
                buffer_size=self._kept * n,
                learning_starts=self._warmup * n,
                batch_size=c.batch_size,
                tau=c.soft_update,
                gamma=1.0,
                train_freq=(1, "episode"),
                gradient_steps=c.updates,
                action_noise=self._noise,
                policy_kwargs={"net_arch": [c.hidden, c.hidden]},
                seed=session.seed,
                device="cpu",
            )
            self._model.set_logger(Logger(folder=None, output_formats=[]))

    def ask(self, n: int) -> Sequence[Plan]:
        """The plan of the next episode."""
        beyond = len(self._finals) - self._warmup
        if beyond > 0:
            self._noise._sigma = np.full(1, self.config.noise * self.config.noise_decay**beyond)
        with self._randomness:
            self._model.draft(self._drafts)
        return [self.session.codec.plan_of(self._drafts.ratios[0])]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Stores the episode with its reward and trains on those so far."""
        for evaluation in evaluations:
            reward = np.float32(evaluation.reward(self.session.reference))
            self._finals.append(squash(float(reward)))
        with self._randomness:
            shared = shared_rewards(self._finals, len(self.session.space), self._kept)
            self._model.learn_from_draft(shared)
