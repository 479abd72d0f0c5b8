"""A (mu + lambda) evolutionary search over action vectors."""

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


@dataclass(frozen=True)
class EvolutionConfig(AgentConfig):
    """Options of the evolutionary search.

    Attributes:
        parents: survivors of each generation (mu).
        children: new plans per generation (lambda).
        initial: random plans before the first generation.
        mutation_rate: chance that a gene of a child is disturbed.
        mutation_std: standard deviation of the disturbance, in action units.
        crossover_rate: chance that a child has two parents.
    """

    name: ClassVar[str] = "evolution"
    parents: int = 8
    children: int = 12
    initial: int = 24
    mutation_rate: float = 0.3
    mutation_std: float = 0.3
    crossover_rate: float = 0.5

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        for field in ("parents", "children", "initial"):
            self.require(getattr(self, field) >= 1, field, "at least 1")
        for field in ("mutation_rate", "crossover_rate"):
            self.require(0 <= getattr(self, field) <= 1, field, "in [0, 1]")
        self.require(self.mutation_std > 0, "mutation_std", "positive")


class EvolutionAgent(Agent):
    """Keeps the best plans and recombines and mutates them."""

    config_class = EvolutionConfig
    config: EvolutionConfig
    batches = True

    def start(self, session: Session) -> None:
        """Begins with the anchor alone."""
        super().start(session)
        anchor = (session.reference.quality, np.zeros(len(session.space)))
        self._parents: list[tuple[float, np.ndarray]] = [anchor]
        self._children: list[tuple[float, np.ndarray]] = []
        self._asked: list[np.ndarray] = []
        self._size = self.config.initial
        self._founded = False

    def ask(self, n: int) -> Sequence[Plan]:
        """Plans of the generation at hand; random ones in the first."""
        session = self.session
        count = min(n, self._size - len(self._children))
        parents = [genes for _, genes in self._parents]
        self._asked = [
            self._child(parents, session.rng)
            if self._founded
            else session.rng.uniform(-1, 1, len(session.space))
            for _ in range(count)
        ]
        return [session.codec.plan(genes) for genes in self._asked]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Selects the next parents when the generation is complete."""
        scores = (evaluation.quality for evaluation in evaluations)
        self._children += list(zip(scores, self._asked, strict=False))
        if len(self._children) == self._size:
            population = sorted(self._parents + self._children, key=lambda p: -p[0])
            self._parents, self._children = population[: self.config.parents], []
            self._size, self._founded = self.config.children, True

    def _child(self, parents: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        c = self.config
        first, second = (parents[i] for i in rng.integers(len(parents), size=2))
        child = first.copy()
        if rng.random() < c.crossover_rate:
            child = np.where(rng.random(len(child)) < 0.5, first, second)
        mutated = rng.random(len(child)) < c.mutation_rate
        mutated[rng.integers(len(child))] = True
        child = child + mutated * rng.normal(0.0, c.mutation_std, len(child))
        return np.asarray(np.clip(child, -1.0, 1.0))
