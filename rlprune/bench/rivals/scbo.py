"""SCBO on BoTorch: scalable constrained Bayesian optimisation in a trust region."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from rlprune.bench.rivals.base import Rival, RivalConfig, Seen
from rlprune.search import one_thread


@dataclass(frozen=True)
class ScboConfig(RivalConfig):
    """Options of SCBO.

    Attributes:
        batch: proposals per fit.
        initial: evaluations before the first fit, drawn from the first trust region.
        length: first side of the trust region, as a share of the range.
        shortest: side at which a new region begins.
        successes: batches in a row that improve before it doubles.
    """

    name: ClassVar[str] = "scbo"
    batch: int = 6
    initial: int = 20
    length: float = 0.8
    shortest: float = 0.5**7
    successes: int = 3


class Scbo(Rival):
    """Thompson sampling in a trust region (Eriksson and Poloczek, AISTATS 2021).

    As in BoTorch's tutorial: a Gaussian process per objective and constraint, candidates that
    perturb the incumbent in few dimensions, ``ConstrainedMaxPosteriorSampling`` where proposals are
    not projected. Vectors are those that stand for the plans evaluated.
    """

    config_class = ScboConfig
    config: ScboConfig
    _length: float
    _good: int
    _bad: int

    def prepare(self, anchor: Seen) -> None:
        """Begins with the first trust region around the anchor."""
        self._seen_all = [anchor]
        self._since = 0
        self._restart()

    def propose(self, n: int) -> Sequence[np.ndarray]:
        """A batch."""
        count = min(n, self.config.batch)
        fresh = self._seen_all[self._since :]
        if len(fresh) < self.config.initial:
            half = self._length
            centre = np.clip(self._best(fresh).actions, -1 + half, 1 - half) if fresh else 0.0
            unit = self._sobol.draw(count).double().numpy()
            return list(centre + half * (2 * unit - 1))
        with one_thread(), warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")
            torch.manual_seed(int(self.session.rng.integers(2**31)))
            return list(self._batch(fresh, count))

    def learn(self, results: Sequence[Seen]) -> None:
        """Grows or shrinks the trust region."""
        fresh = self._seen_all[self._since :]
        self._seen_all += results
        if not results or len(fresh) < self.config.initial:
            return
        better = self._rank(self._best(results)) < self._rank(self._best(fresh))
        self._good, self._bad = (self._good + 1, 0) if better else (0, self._bad + 1)
        if self._good >= self.config.successes:
            self._length, self._good = min(2 * self._length, 1.6), 0
        patience = math.ceil(max(4.0, self.dimensions) / self.config.batch)
        if self._bad >= patience:
            self._length, self._bad = self._length / 2, 0
        if self._length < self.config.shortest:
            self._since = len(self._seen_all)
            self._restart()

    def _restart(self) -> None:
        from torch.quasirandom import SobolEngine

        self._length, self._good, self._bad = self.config.length, 0, 0
        seed = int(self.session.rng.integers(2**31))
        self._sobol = SobolEngine(self.dimensions, scramble=True, seed=seed)

    def _rank(self, seen: Seen) -> tuple[float, float]:
        """Violation first, then loss."""
        violation = 0.0 if self.config.project else float(np.maximum(seen.violations, 0).sum())
        return violation, seen.loss

    def _best(self, seen: Sequence[Seen]) -> Seen:
        return min(seen, key=self._rank)

    def _batch(self, fresh: Sequence[Seen], count: int) -> np.ndarray:
        from botorch.generation.sampling import (
            ConstrainedMaxPosteriorSampling,
            MaxPosteriorSampling,
        )
        from botorch.models.model_list_gp_regression import ModelListGP

        x = torch.tensor(np.array([s.actions for s in fresh]), dtype=torch.float64)
        unit = (x + 1) / 2
        objective = torch.tensor([-s.loss for s in fresh], dtype=torch.float64)
        model = _process(unit, objective)
        centre = (torch.tensor(self._best(fresh).actions) + 1) / 2
        side = self._length / 2
        low, high = (centre - side).clamp(0, 1), (centre + side).clamp(0, 1)
        candidates = min(5000, max(2000, 200 * self.dimensions))
        seed = int(self.session.rng.integers(2**31))
        engine = torch.quasirandom.SobolEngine(self.dimensions, scramble=True, seed=seed)
        drawn = low + (high - low) * engine.draw(candidates).double()
        mask = torch.rand(candidates, self.dimensions) <= min(20.0 / self.dimensions, 1.0)
        none = ~mask.any(dim=1)
        mask[none, torch.randint(self.dimensions, (int(none.sum()),))] = True
        pool = torch.where(mask, drawn, centre)
        sampler: Any
        if self.config.project:
            sampler = MaxPosteriorSampling(model=model, replacement=False)
        else:
            bounds = torch.tensor(np.array([s.violations for s in fresh]), dtype=torch.float64)
            limits = ModelListGP(*(_process(unit, column, raw=True) for column in bounds.T))
            sampler = ConstrainedMaxPosteriorSampling(
                model=model, constraint_model=limits, replacement=False
            )
        with torch.no_grad():
            found = sampler(pool, num_samples=count)
        return np.asarray(2 * found.numpy() - 1)


def _process(x: torch.Tensor, y: torch.Tensor, *, raw: bool = False) -> Any:
    """A fitted process with one length scale per dimension; standardised unless ``raw``."""
    from botorch.exceptions.errors import ModelFittingError
    from botorch.fit import fit_gpytorch_mll
    from botorch.models.gp_regression import SingleTaskGP
    from botorch.models.transforms.outcome import Standardize
    from gpytorch.constraints import Interval
    from gpytorch.kernels import MaternKernel, ScaleKernel
    from gpytorch.likelihoods import GaussianLikelihood
    from gpytorch.mlls import ExactMarginalLogLikelihood

    values = y[:, None]
    kernel = ScaleKernel(
        MaternKernel(nu=2.5, ard_num_dims=x.shape[1], lengthscale_constraint=Interval(0.005, 4.0))
    )
    model = SingleTaskGP(
        x,
        values,
        covar_module=kernel,
        likelihood=GaussianLikelihood(noise_constraint=Interval(1e-8, 1e-3)),
        outcome_transform=None if raw else Standardize(m=1),
    )
    try:
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    except ModelFittingError:
        model.eval()
    return model
