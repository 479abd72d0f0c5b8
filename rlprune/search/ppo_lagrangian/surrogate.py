"""Gaussian-process surrogate of the terminal reward over keep ratios."""

from __future__ import annotations

import math

import numpy as np
import torch

_JITTER = 1e-6
_REFIT = 1.15


class Surrogate:
    """Matern-5/2 Gaussian process with one length scale per group.

    Hyperparameters are the maximum a posteriori under the log-normal priors of Hvarfner,
    Hellsten and Nardi ("Vanilla Bayesian optimization performs great in high dimensions",
    ICML 2024), whose length scales grow with the square root of the dimension.

    Args:
        dimensions: number of groups.
        capacity: newest points kept beside the best ones, to bound the cost of a fit.
    """

    def __init__(self, dimensions: int, capacity: int = 400) -> None:
        self._capacity = capacity
        self._inputs: list[np.ndarray] = []
        self._targets: list[float] = []
        prior = math.sqrt(2.0) + 0.5 * math.log(dimensions)
        self._length_prior = prior
        self._log_length = torch.full((dimensions,), prior - 1.0, dtype=torch.float64)
        self._log_noise = torch.tensor(-4.0, dtype=torch.float64)
        self._tuned_at = 0

    def __len__(self) -> int:
        return len(self._targets)

    def add(self, ratios: np.ndarray, target: float) -> None:
        """Adds one evaluated plan: ``[n]`` keep ratios and its reward."""
        self._inputs.append(np.asarray(ratios, dtype=np.float64))
        self._targets.append(float(target))

    def fit(self, steps: int = 30) -> None:
        """Conditions on the points added so far; tunes hyperparameters when 15 % are new."""
        keep = self._selection()
        self._x = _warp(np.array([self._inputs[i] for i in keep]))
        y = torch.tensor([self._targets[i] for i in keep], dtype=torch.float64)
        self._mean, self._std = y.mean(), y.std().clamp_min(1e-9)
        self._y = (y - self._mean) / self._std
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

    def predict(self, ratios: np.ndarray) -> np.ndarray:
        """Posterior mean ``[P]`` of the reward at ``[P, n]`` keep ratios."""
        cross = _matern(_warp(ratios), self._x, self._log_length)
        mean = (cross @ self._weights)[:, 0]
        return np.asarray(mean * self._std + self._mean)

    def sample(self, ratios: np.ndarray, count: int, generator: torch.Generator) -> np.ndarray:
        """Joint posterior samples ``[count, P]`` of the reward at ``[P, n]`` keep ratios."""
        x = _warp(ratios)
        cross = _matern(x, self._x, self._log_length)
        mean = (cross @ self._weights)[:, 0]
        half = torch.linalg.solve_triangular(self._factor, cross.T, upper=False)
        covariance = _matern(x, x, self._log_length) - half.T @ half
        eye = torch.eye(len(x), dtype=torch.float64)
        root = torch.linalg.cholesky_ex(covariance + 1e-5 * eye)[0]
        noise = torch.randn(len(x), count, dtype=torch.float64, generator=generator)
        return np.asarray((mean[:, None] + root @ noise).T * self._std + self._mean)

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


def _warp(ratios: np.ndarray) -> torch.Tensor:
    """Log keep ratios: halving a group costs about as much wherever it starts from."""
    return torch.from_numpy(np.log(np.atleast_2d(ratios)))


def _matern(a: torch.Tensor, b: torch.Tensor, log_length: torch.Tensor) -> torch.Tensor:
    scale = log_length.exp()
    squared = (
        ((a / scale) ** 2).sum(1)[:, None]
        + ((b / scale) ** 2).sum(1)[None]
        - 2.0 * (a / scale) @ (b / scale).T
    )
    distance = (squared.clamp_min(1e-12) * 5.0).sqrt()
    return (1.0 + distance + distance**2 / 3.0) * torch.exp(-distance)
