"""Ridge regression from second moments."""

from __future__ import annotations

import math

import torch
from torch import Tensor

GRID = tuple(10 ** (k / 2) for k in range(-12, 5))
"""Ridges that cross-validation tries, relative to the mean square of an input."""


def solve(gram: Tensor, right: Tensor, pull: Tensor, prior: Tensor) -> Tensor:
    """Solve ``(gram + diag(pull)) x = right + diag(pull) prior``.

    Args:
        gram: [n, n] float64, positive semi-definite.
        right: [n, m].
        pull: [n], zero or positive.
        prior: [n, m].

    Returns:
        x, [n, m]. Where the matrix is singular the pull grows until it is not; where nothing is
        finite x is the prior.
    """
    scale = float(gram.diagonal().mean())
    if scale <= 0:
        return prior
    jitter = 0.0
    while jitter <= 1e6 * scale:
        strength = pull + jitter
        damped = gram.clone()
        damped.diagonal().add_(strength)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            found = torch.cholesky_solve(right + strength[:, None] * prior, factor)
            if math.isfinite(float(found.sum())):
                return found
        jitter = max(10 * jitter, 1e-12 * scale)
    return prior
