"""Gaussian-process surrogate of the terminal reward over plans."""

from __future__ import annotations

import math

import numpy as np
import torch

_JITTER = 1e-6
_REFIT = 1.15


class Surrogate:
    """Matern-5/2 Gaussian process with one length scale per group around a predicted reward.

    Inputs are shifted and scaled, all by one factor, to a mean variance of one. Hyperparameters are
    the maximum a posteriori under the log-normal priors of Hvarfner, Hellsten and Nardi ("Vanilla
    Bayesian optimization performs great in high dimensions", ICML 2024), whose length scales grow
    with the square root of the dimension. The mean is a line over a prediction of the reward,
    fitted by least squares.

    Args:
        dimensions: number of groups.
        capacity: newest points kept beside the best ones, to bound the cost of a fit.
    """

    def __init__(self, dimensions: int, capacity: int = 400) -> None:
        self._capacity = capacity
        self._inputs: list[np.ndarray] = []
        self._predicted: list[float] = []
        self._targets: list[float] = []
        prior = math.sqrt(2.0) + 0.5 * math.log(dimensions)
        self._length_prior = prior
        self._log_length = torch.full((dimensions,), prior - 1.0, dtype=torch.float64)
        self._log_noise = torch.tensor(-4.0, dtype=torch.float64)
        self._tuned_at = 0

    def __len__(self) -> int:
        return len(self._targets)

    def add(self, inputs: np.ndarray, predicted: float, target: float) -> None:
        """Adds one evaluated plan: ``[n]`` inputs, its predicted reward and the real one."""
        self._inputs.append(np.asarray(inputs, dtype=np.float64))
        self._predicted.append(float(predicted))
        self._targets.append(float(target))

    def fit(self, steps: int = 30) -> None:
        """Conditions on the points added so far; tunes hyperparameters when 15 % are new."""
        keep = self._selection()
        x = np.array([self._inputs[i] for i in keep])
        self._centre = x.mean(axis=0)
        self._scale = 1.0 / max(float(np.sqrt(x.var(axis=0).mean())), 1e-9)
        self._x = self._warp(x)
        predicted = np.array([self._predicted[i] for i in keep])
        y = np.array([self._targets[i] for i in keep])
        self._slope = _slope(predicted, y)
        rest = torch.from_numpy(y - self._slope * predicted)
        self._mean, self._std = rest.mean(), rest.std().clamp_min(1e-9)
        self._y = (rest - self._mean) / self._std
        length = self._log_length.clone().requires_grad_()
        noise = self._log_noise.clone().requires_grad_()
        optimizer = torch.optim.Adam([length, noise], lr=0.1)
        due = len(self._targets) >= _REFIT * self._tuned_at
        self._tuned_at = len(self._targets) if due else self._tuned_at
        for _ in range(steps if due else 0):
            optimizer.zero_grad()
            loss = self._negative_log_posterior(length, noise)
            loss.backward()
            optimizer.step()
        self._log_length, self._log_noise = length.detach(), noise.detach()
        self._factor = self._cholesky(self._log_length, self._log_noise)
        self._weights = torch.cholesky_solve(self._y[:, None], self._factor)

    def predict(self, inputs: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """Posterior mean ``[P]`` of the reward at ``[P, n]`` inputs, predictions ``[P]``."""
        cross = _matern(self._warp(inputs), self._x, self._log_length)
        mean = (cross @ self._weights)[:, 0]
        return np.asarray(mean * self._std + self._mean) + self._slope * predicted

    def sample(
        self, inputs: np.ndarray, predicted: np.ndarray, count: int, generator: torch.Generator
    ) -> np.ndarray:
        """Joint posterior samples ``[count, P]`` of the reward; see :meth:`predict`."""
        x = self._warp(inputs)
        cross = _matern(x, self._x, self._log_length)
        mean = (cross @ self._weights)[:, 0]
        half = torch.linalg.solve_triangular(self._factor, cross.T, upper=False)
        covariance = _matern(x, x, self._log_length) - half.T @ half
        eye = torch.eye(len(x), dtype=torch.float64)
        root = torch.linalg.cholesky_ex(covariance + 1e-5 * eye)[0]
        noise = torch.randn(len(x), count, dtype=torch.float64, generator=generator)
        around = np.asarray((mean[:, None] + root @ noise).T * self._std + self._mean)
        return around + self._slope * predicted

    def _warp(self, inputs: np.ndarray) -> torch.Tensor:
        return torch.from_numpy((np.atleast_2d(inputs) - self._centre) * self._scale)

    def _selection(self) -> list[int]:
        total = len(self._targets)
        if total <= self._capacity:
            return list(range(total))
        ranked = sorted(range(total), key=lambda i: -self._targets[i])
        best = set(ranked[: self._capacity // 2])
        newest = [i for i in reversed(range(total)) if i not in best]
        return sorted(best | set(newest[: self._capacity - len(best)]))

    def _cholesky(self, length: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        kernel = _matern(self._x, self._x, length)
        eye = torch.eye(len(self._x), dtype=torch.float64)
        return torch.linalg.cholesky(kernel + (noise.exp() + _JITTER) * eye)

    def _negative_log_posterior(self, length: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        factor = self._cholesky(length, noise)
        solved = torch.cholesky_solve(self._y[:, None], factor)[:, 0]
        likelihood = -0.5 * self._y @ solved - factor.diagonal().log().sum()
        prior = -((length - self._length_prior) ** 2).sum() / 6.0 - (noise + 4.0) ** 2 / 2.0
        return -(likelihood + prior)


def _slope(predicted: np.ndarray, target: np.ndarray) -> float:
    """Slope of the least-squares line, not negative: a prediction that misleads is ignored."""
    around = predicted - predicted.mean()
    squares = float(around @ around)
    return max(float(around @ target) / squares, 0.0) if squares > 1e-12 else 0.0


def _matern(a: torch.Tensor, b: torch.Tensor, log_length: torch.Tensor) -> torch.Tensor:
    scale = log_length.exp()
    squared = (
        ((a / scale) ** 2).sum(1)[:, None]
        + ((b / scale) ** 2).sum(1)[None]
        - 2.0 * (a / scale) @ (b / scale).T
    )
    distance = (squared.clamp_min(1e-12) * 5.0).sqrt()
    return (1.0 + distance + distance**2 / 3.0) * torch.exp(-distance)
