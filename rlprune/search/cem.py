"""The cross-entropy method with a diagonal Gaussian (Rubinstein, 1999; De Boer et al., 2005)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from rlprune.search.agent import Agent, AgentConfig

if TYPE_CHECKING:
    from rlprune.search.session import Session

_WIDEN = 1.5


@dataclass(frozen=True)
class CemConfig(AgentConfig):
    """Options of the cross-entropy method.

    Attributes:
        samples: plans per generation.
        elites: best plans that the next Gaussian is fitted to.
        initial_std: standard deviation of the first generation, in action units.
        smoothing: weight of the new fit in mean and standard deviation.
        min_std: the standard deviation never falls below this.
    """

    name: ClassVar[str] = "cem"
    samples: int = 12
    elites: int = 4
    initial_std: float = 0.5
    smoothing: float = 1.0
    min_std: float = 0.02

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        self.require(self.samples >= 2, "samples", "at least 2")
        self.require(1 <= self.elites < self.samples, "elites", "between 1 and samples - 1")
        self.require(self.initial_std > 0, "initial_std", "positive")
        self.require(0 < self.smoothing <= 1, "smoothing", "in (0, 1]")
        self.require(self.min_std > 0, "min_std", "positive")


class CemAgent(Agent):
    """Fits a Gaussian to the elites of each generation and samples the next from it.

    A generation that brings no new plan widens the Gaussian instead.
    """

    config_class = CemConfig
    config: CemConfig

    def run(self, session: Session) -> None:
        """Iterates until the session is done."""
        c, n = self.config, session.decisions
        mean = np.array(self.state.get("mean", np.zeros(n)), dtype=np.float64)
        std: np.ndarray = np.full(n, c.initial_std)
        while not session.done:
            known = len(session.ledger)
            scored: list[tuple[float, np.ndarray]] = []
            while len(scored) < c.samples and not session.done:
                actions = np.clip(session.rng.normal(mean, std), -1.0, 1.0)
                scored.append((session.play(actions).reward, actions))
            if len(scored) < c.samples:
                break
            if len(session.ledger) == known:
                std = std * _WIDEN
                continue
            ranked = sorted(scored, key=lambda s: -s[0])
            elites = np.array([actions for _, actions in ranked[: c.elites]])
            mean = (1 - c.smoothing) * mean + c.smoothing * elites.mean(axis=0)
            std = (1 - c.smoothing) * std + c.smoothing * elites.std(axis=0)
            std = np.maximum(std, c.min_std)
        self.state = {"mean": mean.tolist(), "std": std.tolist()}
