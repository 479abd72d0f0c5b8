"""Options of PPO-Lagrangian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rlprune.search.agent import AgentConfig


@dataclass(frozen=True)
class PPOLagrangianConfig(AgentConfig):
    """Options of the constrained PPO agent.

    Attributes:
        project: scale each proposal onto the budgets before it is evaluated.
        episodes: plans evaluated per policy update.
        proposals: episodes rolled out per policy update; the surrogate picks which to evaluate.
        refine: improve what the surrogate picks by exchanges between decisions; proposals that are
            not projected are evaluated as they are.
        unscreened: fraction of the evaluated plans that the surrogate has no say in.
        exploit: fraction of the evaluated plans that is best by the surrogate's mean.
        warmup: evaluations before the surrogate picks among proposals as they are.
        updates: policy updates per batch of evaluations, all but one on forecast rewards alone.
        learning_rate: Adam step size.
        epochs: passes over a rollout per update.
        clip_range: PPO's clipping of the probability ratio.
        entropy: weight of the entropy bonus.
        initial_std: standard deviation of the first actions; None takes 0.15 around the plan of
            least predicted damage and 0.5 around the uniform one.
        min_std: the standard deviation never falls below this.
        hidden: width of the hidden layers.
        kp: proportional gain of the multipliers.
        ki: integral gain of the multipliers.
        kd: derivative gain of the multipliers.
        max_multiplier: upper bound of each multiplier.
        start: folder of a run or of a saved agent whose policy the search starts from; its network
            and budgets may be others, the number of budgets may not.
        start_std: a policy that was trained before starts with standard deviations of at least
            this; None takes 0.8 of the first ones.
    """

    name: ClassVar[str] = "ppo_lagrangian"
    anchor: str = "sensitivity"
    project: bool = True
    episodes: int = 6
    proposals: int = 128
    refine: bool = True
    unscreened: float = 0.15
    exploit: float = 0.5
    warmup: int = 24
    updates: int = 2
    learning_rate: float = 0.01
    epochs: int = 16
    clip_range: float = 0.6
    entropy: float = 0.0
    initial_std: float | None = None
    min_std: float = 0.02
    hidden: int = 32
    kp: float = 2.0
    ki: float = 1.5
    kd: float = 0.2
    max_multiplier: float = 20.0
    start: str | None = None
    start_std: float | None = None

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        self.require(self.episodes >= 2, "episodes", "at least 2")
        self.require(
            self.proposals >= self.episodes, "proposals", f"at least episodes={self.episodes}"
        )
        for field in ("unscreened", "exploit"):
            self.require(0 <= getattr(self, field) <= 1, field, "in [0, 1]")
        self.require(self.warmup >= 2, "warmup", "at least 2")
        for field in ("updates", "epochs", "hidden"):
            self.require(getattr(self, field) >= 1, field, "at least 1")
        for field in (
            "learning_rate",
            "clip_range",
            "min_std",
            "max_multiplier",
        ):
            self.require(getattr(self, field) > 0, field, "positive")
        for field in ("initial_std", "start_std"):
            value = getattr(self, field)
            self.require(value is None or value > 0, field, "positive")
        for field in ("entropy", "kp", "ki", "kd"):
            self.require(getattr(self, field) >= 0, field, "zero or positive")
