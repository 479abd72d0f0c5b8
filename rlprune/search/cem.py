"""The cross-entropy method with a diagonal Gaussian (Rubinstein, 1999; De Boer et al., 2005)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from rlprune.search.agent import Agent, AgentConfig

if TYPE_CHECKING:
    from rlprune.plan import Plan
    from rlprune.problem import Evaluation
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
    batches = True

    def start(self, session: Session) -> None:
        """Begins with the Gaussian around the anchor, or around the mean that was learned."""
        super().start(session)
        n = len(session.space)
        self._mean = np.array(self.state.get("mean", np.zeros(n)), dtype=np.float64)
        self._std: np.ndarray = np.full(n, self.config.initial_std)
        self._asked: list[np.ndarray] = []
        self._scored: list[tuple[float, np.ndarray]] = []
        self._known = len(session.ledger)

    def ask(self, n: int) -> Sequence[Plan]:
        """Plans of the generation at hand."""
        session = self.session
        count = min(n, self.config.samples - len(self._scored))
        drawn = (session.rng.normal(self._mean, self._std) for _ in range(count))
        self._asked = [np.clip(actions, -1.0, 1.0) for actions in drawn]
        return [session.codec.plan(actions) for actions in self._asked]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Fits the next Gaussian when the generation is complete."""
        c, session = self.config, self.session
        scores = (evaluation.quality for evaluation in evaluations)
        self._scored += list(zip(scores, self._asked, strict=False))
        if len(self._scored) == c.samples:
            if len(session.ledger) == self._known:
                self._std = self._std * _WIDEN
            else:
                ranked = sorted(self._scored, key=lambda s: -s[0])
                elites = np.array([actions for _, actions in ranked[: c.elites]])
                mean, std = elites.mean(axis=0), elites.std(axis=0)
                self._mean = (1 - c.smoothing) * self._mean + c.smoothing * mean
                self._std = (1 - c.smoothing) * self._std + c.smoothing * std
                self._std = np.maximum(self._std, c.min_std)
            self._scored, self._known = [], len(session.ledger)
        self.state = {"mean": self._mean.tolist(), "std": self._std.tolist()}
