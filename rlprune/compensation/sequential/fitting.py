"""Refitting one layer to rows of what it reads and of what it is to answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rlprune.linear.solve import GRID, solve
from rlprune.linear.weights import Consumer
from rlprune.observe.moments import SecondMoments

_NOTHING_TO_MEND = 1e-10


def scale_of(layer: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """What batch normalisation multiplies a layer's answers to a batch by, [outputs]."""
    spread = _spread(layer.forward(x), norm)
    return (norm.get_parameter("weight").detach().to(spread) / spread).cpu()


def match(norm: nn.Module, answered: Tensor, wanted: Tensor) -> None:
    """Let batch normalisation leave a layer's answers their scale, and give them a mean."""
    with torch.no_grad():
        norm.get_parameter("weight").copy_(_spread(answered, norm))
        if getattr(norm, "bias", None) is not None:
            norm.get_parameter("bias").copy_(wanted.mean((0, 1)))


def _spread(answered: Tensor, norm: nn.Module) -> Tensor:
    """The standard deviation that batch normalisation divides by, [outputs] float64."""
    axes = [axis for axis in range(answered.ndim) if axis != 1]
    variance = answered.double().var(axes, unbiased=False)
    return (variance + float(norm.eps)).sqrt()  # type: ignore[arg-type]


def refit_rows(
    consumer: Consumer,
    x: Tensor,
    y: Tensor,
    normalised: bool,
    scale: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[tuple[float, float], bool]:
    """Refit one layer to rows of its inputs and of the outputs wanted.

    Args:
        consumer: The layer.
        x: Its inputs, [samples, positions, inputs].
        y: The outputs wanted, [samples, positions, outputs].
        normalised: Whether the mean of the outputs does not matter.
        scale: By how much its outputs count in units of ``y``, [outputs].
        mask: Which rows count, [samples, positions]; None for all.

    Returns:
        The relative error before and after, and whether the layer was changed.
    """
    weight = consumer.module.get_parameter("weight")
    bias = getattr(consumer.module, "bias", None)
    prior = consumer.matrix(weight, None if bias is None else torch.zeros_like(bias)).T
    prior = prior[:-1] if consumer.intercept else prior
    if scale is not None:
        prior = prior * scale
    x, y = x.float(), y.float()
    if len(x) < 2:
        x, y = x.transpose(0, 1), y.transpose(0, 1)
        mask = None if mask is None else mask.T
    means = None
    if consumer.intercept or normalised:
        means = (_mean(x, mask), _mean(y, mask))
        x, y = x - means[0], y - means[1]
    halves = _products(x, y, mask)
    gram, cross, power = (sum(parts) / 2 for parts in zip(*halves, strict=True))
    if not (bool(torch.isfinite(gram).all()) and bool(torch.isfinite(cross).all())):
        return (float("nan"), float("nan")), False
    error = _error(gram, cross, prior) + float(power)
    level = float(gram.diagonal().mean())
    if error <= _NOTHING_TO_MEND * float(power) or level <= 0:
        return (0.0, 0.0), False
    ridge = choose(halves, prior)
    if ridge is None and scale is not None:
        return (error / float(power), error / float(power)), False
    fitted = prior
    if ridge is not None:
        pull = torch.full((len(gram),), ridge / 2 * level, dtype=gram.dtype)
        fitted = solve(gram, cross, pull, prior)
    matrix = fitted.T
    if consumer.intercept and means is not None:
        shift = means[1].cpu().double() - fitted.T @ means[0].cpu().double()
        matrix = torch.cat([matrix, shift[:, None]], 1)
    consumer.write(consumer.module, matrix)
    after = _error(gram, cross, fitted) + float(power)
    return (error / float(power), after / float(power)), True


def _mean(rows: Tensor, mask: Tensor | None) -> Tensor:
    return rows.mean((0, 1)) if mask is None else rows[mask].mean(0)


def _products(x: Tensor, y: Tensor, mask: Tensor | None) -> list[tuple[Tensor, ...]]:
    """``E[x x^T]``, ``E[x y^T]`` and ``E[y^T y]`` over rows of every other sample, twice."""
    found = []
    for half in range(2):
        rows, wanted = x[half::2], y[half::2]
        kept = None if mask is None else mask[half::2]
        moments = SecondMoments()
        if kept is None:
            moments.add(rows.flatten(0, 1), wanted.flatten(0, 1))
        else:
            moments.add(rows[kept], wanted[kept])
        found.append(moments.means)
    return found


def _error(gram: Tensor, cross: Tensor, weight: Tensor) -> float:
    """``E ||W^T x - y||^2`` less ``E ||y||^2``."""
    return float(((gram @ weight) * weight).sum() - 2 * (cross * weight).sum())


def choose(halves: Sequence[tuple[Tensor, ...]], prior: Tensor) -> float | None:
    """The ridge, relative to the mean square of an input, that predicts one half from the other.

    Returns:
        The ridge for one half of the samples; None where leaving the weights alone predicts best.
    """
    losses = torch.zeros(len(GRID), dtype=torch.float64)
    for train, test in (halves, halves[::-1]):
        gram, cross, _ = train
        values, vectors = torch.linalg.eigh(gram)
        scale = float(gram.diagonal().mean())
        target = vectors.T @ (cross - gram @ prior)
        wanted = vectors.T @ (test[1] - test[0] @ prior)
        inner = vectors.T @ test[0] @ vectors
        for k, ridge in enumerate(GRID):
            change = target / (values.clamp_min(0) + ridge * scale)[:, None]
            losses[k] += ((inner @ change) * change).sum() - 2 * (change * wanted).sum()
    best = int(losses.argmin())
    return GRID[best] if float(losses[best]) < 0 else None
