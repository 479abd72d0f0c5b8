"""ISRES of pymoo: an evolution strategy with stochastic ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rlprune.bench.rivals.base import Rival, RivalConfig, Seen


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


class Isres(Rival):
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
        self._generation: Any = None
        self._results: list[Seen] = []

    def propose(self, n: int) -> Sequence[np.ndarray]:
        """What is left of the generation at hand."""
        if self._generation is None:
            self._generation = self._algorithm.ask()
        vectors = self._generation.get("X")[len(self._results) :][:n]
        return [np.asarray(x, dtype=np.float64) for x in vectors]

    def learn(self, results: Sequence[Seen]) -> None:
        """Ranks the generation when it is complete."""
        from pymoo.core.evaluator import Evaluator
        from pymoo.problems.static import StaticProblem

        self._results += results
        if len(self._results) < len(self._generation):
            return
        known = {"F": np.array([[seen.loss] for seen in self._results])}
        if not self.config.project:
            known["G"] = np.array([seen.violations for seen in self._results])
        Evaluator().eval(StaticProblem(self._problem, **known), self._generation)
        self._algorithm.tell(infills=self._generation)
        self._generation, self._results = None, []
