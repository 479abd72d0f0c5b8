"""ISRES of pymoo: an evolution strategy with stochastic ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rlprune.bench.rivals.base import Generational, RivalConfig, Seen


@dataclass(frozen=True)
class IsresConfig(RivalConfig):
    """Options of ISRES.

    Attributes:
        samples: vectors per generation.
        parents: of them survive.
        std: spread of the first generation around the anchor, in action units.
    """

    name: ClassVar[str] = "isres"
    samples: int = 14
    parents: int = 4
    std: float = 0.3


class Isres(Generational):
    """Improved stochastic ranking (Runarsson and Yao, 2005)."""

    config_class = IsresConfig
    config: IsresConfig

    def prepare(self, anchor: Seen) -> None:
        """Begins with a generation around the anchor."""
        from pymoo.algorithms.soo.nonconvex.isres import ISRES
        from pymoo.core.problem import Problem

        c, rng = self.config, self.session.rng
        constraints = 0 if c.project else len(anchor.violations)
        self._problem = Problem(
            n_var=self.dimensions, n_obj=1, n_ieq_constr=constraints, xl=-1.0, xu=1.0
        )
        first = np.clip(rng.normal(0.0, c.std, (c.samples, self.dimensions)), -1.0, 1.0)
        first[0] = 0.0
        self._algorithm: Any = ISRES(
            n_offsprings=c.samples, rule=c.parents / c.samples, sampling=first
        )
        seed = int(rng.integers(2**31))
        self._algorithm.setup(self._problem, termination=("n_gen", 10**9), seed=seed, verbose=False)
        self._population: Any = None

    def breed(self) -> Sequence[np.ndarray]:
        """The next generation."""
        self._population = self._algorithm.ask()
        return [np.asarray(x, dtype=np.float64) for x in self._population.get("X")]

    def select(self, generation: Sequence[np.ndarray], results: Sequence[Seen]) -> None:
        """Ranks the generation."""
        from pymoo.core.evaluator import Evaluator
        from pymoo.problems.static import StaticProblem

        known = {"F": np.array([[seen.loss] for seen in results])}
        if not self.config.project:
            known["G"] = np.array([seen.violations for seen in results])
        Evaluator().eval(StaticProblem(self._problem, **known), self._population)
        self._algorithm.tell(infills=self._population)
