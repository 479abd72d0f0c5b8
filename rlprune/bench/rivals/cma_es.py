"""CMA-ES of the ``cma`` package, constraints by its augmented Lagrangian."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlprune.bench.rivals.base import Generational, RivalConfig, Seen


@dataclass(frozen=True)
class CmaEsConfig(RivalConfig):
    """Options of CMA-ES.

    Attributes:
        std: first step size, in action units.
        samples: vectors per generation.
    """

    name: ClassVar[str] = "cma_es"
    std: float = 0.3
    samples: int = 12


class CmaEs(Generational):
    """Covariance matrix adaptation (Hansen, 2016; augmented Lagrangian: Atamna et al., 2017)."""

    config_class = CmaEsConfig
    config: CmaEsConfig

    def prepare(self, anchor: Seen) -> None:
        """Begins at the anchor."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import cma

        c = self.config
        self._strategy = cma.CMAEvolutionStrategy(
            np.zeros(self.dimensions),
            c.std,
            {
                "bounds": [-1.0, 1.0],
                "popsize": c.samples,
                "seed": int(self.session.rng.integers(1, 2**31)),
                "verbose": -9,
                "CMA_diagonal": True,
            },
        )
        self._known: dict[bytes, Seen] = {}
        self._fitness = cma.ConstrainedFitnessAL(
            lambda x: self._known[x.tobytes()].loss,
            lambda x: self._known[x.tobytes()].violations,
            logging=False,
            archives=False,
        )

    def breed(self) -> Sequence[np.ndarray]:
        """The next generation."""
        return [np.asarray(x) for x in self._strategy.ask()]

    def select(self, generation: Sequence[np.ndarray], results: Sequence[Seen]) -> None:
        """Updates the distribution."""
        losses = [seen.loss for seen in results]
        if not self.config.project:
            self._known = {x.tobytes(): r for x, r in zip(generation, results, strict=True)}
            losses = [float(self._fitness(x)) for x in generation]
        self._strategy.tell(generation, losses)
        if not self.config.project:
            self._fitness.update(self._strategy)
