"""Activations in any form, read a bounded number of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from rlprune.errors import DataError

CHUNK = 4096
"""Rows that are in memory at once."""


@runtime_checkable
class RowStream(Protocol):
    """Anything that hands out ``[tokens, neurons]`` piece by piece, as a recording does."""

    @property
    def shape(self) -> tuple[int, int]:
        """Tokens and neurons."""

    def chunks(self, size: int = CHUNK) -> Iterator[np.ndarray]:
        """Consecutive rows, at most ``size`` at a time."""


def chunks(activations: Any, size: int = CHUNK) -> Iterator[np.ndarray]:
    """Consecutive rows of activations.

    Args:
        activations: ``[tokens, neurons]`` as an array, a memory-mapped array, a tensor, or
            :class:`RowStream`.
        size: most rows of a piece.

    Yields:
        ``[at most size, neurons]`` arrays.

    Raises:
        DataError: It is not a matrix, or it holds values that are not finite.
    """
    tokens, _ = shape(activations)
    if isinstance(activations, RowStream):
        pieces = activations.chunks(size)
    else:
        pieces = (_array(activations[i : i + size]) for i in range(0, tokens, size))
    done = 0
    for piece in pieces:
        if not np.isfinite(piece).all():
            row = done + int(np.nonzero(~np.isfinite(piece).all(axis=1))[0][0])
            raise DataError(f"activations hold a value that is not finite, in row {row}")
        done += len(piece)
        yield piece


def shape(activations: Any) -> tuple[int, int]:
    """Tokens and neurons.

    Raises:
        DataError: It is not a matrix or has no row.
    """
    found = tuple(getattr(activations, "shape", ()))
    if len(found) != 2 or min(found) < 1:
        raise DataError(
            f"activations must be a [tokens, neurons] matrix with at least one of each; this "
            f"{type(activations).__name__} has shape {found}"
        )
    return int(found[0]), int(found[1])


def matrix(activations: Any) -> np.ndarray:
    """All rows at once, for work on samples that are known to be small."""
    return np.concatenate(list(chunks(activations)))


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
