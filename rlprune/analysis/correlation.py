"""Correlations between neurons from one pass over their activations."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlprune.analysis.rows import CHUNK, chunks, shape


def correlation(activations: Any, chunk: int = CHUNK) -> np.ndarray:
    """Pearson correlation of every two neurons.

    Sums of centred products are kept for the rows seen so far and joined with those of the next
    piece (Chan, Golub, LeVeque 1983), in float64, so that nothing cancels and memory does not grow
    with the number of tokens.

    Args:
        activations: ``[tokens, neurons]``; see :func:`rlprune.analysis.rows.chunks`.
        chunk: rows in memory at once.

    Returns:
        ``[neurons, neurons]`` float64, symmetric, ones on the diagonal. A neuron that never changes
        has correlation 0 with every other.

    Raises:
        DataError: See :func:`rlprune.analysis.rows.chunks`.
    """
    neurons = shape(activations)[1]
    count, mean = 0, np.zeros(neurons)
    scatter = np.zeros((neurons, neurons))
    low, high = np.full(neurons, np.inf), np.full(neurons, -np.inf)
    for piece in chunks(activations, chunk):
        rows = piece.astype(np.float64)
        low, high = np.minimum(low, rows.min(0)), np.maximum(high, rows.max(0))
        own = rows.mean(0)
        rows -= own
        scatter += rows.T @ rows
        if count:
            gap = own - mean
            scatter += np.outer(gap, gap * (count * len(rows) / (count + len(rows))))
        mean += (own - mean) * (len(rows) / (count + len(rows)))
        count += len(rows)
    deviation = np.sqrt(scatter.diagonal())
    deviation[low == high] = 0.0
    with np.errstate(divide="ignore"):
        inverse = np.where(deviation > 0, 1.0 / deviation, 0.0)
    scatter *= inverse[:, None]
    scatter *= inverse
    scatter += scatter.T.copy()
    scatter /= 2
    np.clip(scatter, -1.0, 1.0, out=scatter)
    np.fill_diagonal(scatter, 1.0)
    return scatter
