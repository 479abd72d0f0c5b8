"""CMA-ES of the ``cma`` package, constraints by its augmented Lagrangian."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlprune.bench.rivals.base import Rival, RivalConfig, Seen


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


class CmaEs(Rival):
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
        self._generation: list[np.ndarray] = []
        self._results: list[Seen] = []

    def propose(self, n: int) -> Sequence[np.ndarray]:
        """What is left of the generation at hand."""
        if not self._generation:
            self._generation = [np.asarray(x) for x in self._strategy.ask()]
        return self._generation[len(self._results) :][:n]

    def learn(self, results: Sequence[Seen]) -> None:
        """Updates the distribution when the generation is complete."""
        self._results += results
        if len(self._results) < len(self._generation):
            return
        losses = [seen.loss for seen in self._results]
        if not self.config.project:
            pairs = list(zip(self._generation, self._results, strict=True))
            self._known = {x.tobytes(): seen for x, seen in pairs}
            losses = [float(self._fitness(x)) for x in self._generation]
        self._strategy.tell(self._generation, losses)
        if not self.config.project:
            self._fitness.update(self._strategy)
        self._generation, self._results = [], []
