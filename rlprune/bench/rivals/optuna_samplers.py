"""Optuna's samplers, constraints as its trials take them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rlprune.bench.rivals.base import Rival, RivalConfig, Seen
from rlprune.search import one_thread


@dataclass(frozen=True)
class OptunaConfig(RivalConfig):
    """Options of Optuna's samplers.

    Attributes:
        batch: vectors that are asked for before the first result comes back.
    """

    batch: int = 4


class OptunaRival(Rival):
    """A study that is asked and told; subclasses name the sampler."""

    config_class = OptunaConfig
    config: OptunaConfig

    def sampler(self, seed: int) -> Any:
        """The sampler of the study."""
        raise NotImplementedError

    def prepare(self, anchor: Seen) -> None:
        """Enters the anchor as the first trial."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        seed = int(self.session.rng.integers(2**31))
        self._names = [f"x{at:04d}" for at in range(self.dimensions)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._study = optuna.create_study(sampler=self.sampler(seed))
            self._study.enqueue_trial(dict.fromkeys(self._names, 0.0))
            self._trials = [self._trial()]
            self.learn([anchor])

    def propose(self, n: int) -> Sequence[np.ndarray]:
        """A batch of trials' vectors."""
        with one_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._trials = [self._trial() for _ in range(min(n, self.config.batch))]
        return [np.array([t.params[name] for name in self._names]) for t in self._trials]

    def learn(self, results: Sequence[Seen]) -> None:
        """Tells the trials what became of them."""
        for trial, seen in zip(self._trials, results, strict=False):
            if not self.config.project:
                for name, violation in zip(self.session.budgets, seen.violations, strict=True):
                    trial.set_constraint(name, float(violation))
            self._study.tell(trial, seen.loss)

    def _trial(self) -> Any:
        trial = self._study.ask()
        for name in self._names:
            trial.suggest_float(name, -1.0, 1.0)
        return trial


@dataclass(frozen=True)
class OptunaGpConfig(OptunaConfig):
    """Options of the Gaussian-process sampler."""

    name: ClassVar[str] = "optuna_gp"


class OptunaGp(OptunaRival):
    """Expected improvement of a Gaussian process, times the probability of meeting the budgets."""

    config_class = OptunaGpConfig

    def sampler(self, seed: int) -> Any:
        """The sampler of the study."""
        from optuna.samplers import GPSampler

        return GPSampler(seed=seed, deterministic_objective=True)


@dataclass(frozen=True)
class OptunaTpeConfig(OptunaConfig):
    """Options of the tree-structured Parzen estimator."""

    name: ClassVar[str] = "optuna_tpe"


class OptunaTpe(OptunaRival):
    """The tree-structured Parzen estimator (Watanabe, 2023)."""

    config_class = OptunaTpeConfig

    def sampler(self, seed: int) -> Any:
        """The sampler of the study."""
        from optuna.samplers import TPESampler

        return TPESampler(seed=seed)
