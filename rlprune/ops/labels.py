"""Labels: the integers that say which unit each position of a tensor belongs to.

A *plane* is an int64 tensor broadcastable to the tensor it describes (same number of dimensions,
size 1 along every dimension in which labels do not change). Label 0 (`FIXED`) marks positions that
belong to no unit. A tensor may carry several planes: a weight has one per dimension, a bilinear
product one per operand. Labels that must live and die together are joined in one union-find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

FIXED = 0
Plane = Tensor
Planes = tuple[Tensor, ...]


@dataclass(frozen=True)
class Origin:
    """The (tensor, dimension) whose positions labels ``start .. start + size - 1`` stand for."""

    tensor: int
    dim: int
    start: int
    size: int


class Labels:
    """Vectorised union-find over labels, with the reasons why some of them are frozen."""

    def __init__(self) -> None:
        self._parent = np.zeros(1024, dtype=np.int64)
        self._count = 1
        self.origins: list[Origin] = []
        self._starts: list[int] = []
        self.reasons: list[str] = []
        self._reason_ids: dict[str, int] = {}
        self._frozen: list[tuple[np.ndarray, int]] = []

    def __len__(self) -> int:
        return self._count

    def state(self) -> tuple[Any, ...]:
        """What `restore` needs to forget everything that happens from now on."""
        sizes = (self._count, len(self.origins), len(self.reasons), len(self._frozen))
        return (self._parent[: self._count].copy(), *sizes)

    def restore(self, state: tuple[Any, ...]) -> None:
        """Go back to an earlier `state`."""
        parent, self._count, origins, reasons, frozen = state
        self._parent[: self._count] = parent
        del self.origins[origins:], self._starts[origins:], self._frozen[frozen:]
        for reason in self.reasons[reasons:]:
            del self._reason_ids[reason]
        del self.reasons[reasons:]

    def new(self, tensor: int, dim: int, size: int) -> np.ndarray:
        """Create ``size`` fresh labels for one dimension of one tensor. Returns them, [size]."""
        start, end = self._count, self._count + size
        if end > len(self._parent):
            grown = np.zeros(max(end, 2 * len(self._parent)), dtype=np.int64)
            grown[: self._count] = self._parent[: self._count]
            self._parent = grown
        self._parent[start:end] = np.arange(start, end)
        self._count = end
        self.origins.append(Origin(tensor, dim, start, size))
        self._starts.append(start)
        return np.arange(start, end)

    def origin_of(self, labels: np.ndarray) -> set[int]:
        """Indices into `origins` of the given labels (their own, not their root's)."""
        labels = labels[labels != FIXED]
        return set((np.searchsorted(self._starts, np.unique(labels), side="right") - 1).tolist())

    def find(self, labels: np.ndarray) -> np.ndarray:
        """Root of every label, same shape."""
        parent = self._parent
        root = parent[labels]
        while True:
            up = parent[root]
            if np.array_equal(up, root):
                break
            root = parent[up]
        self._parent[labels] = root
        return root

    def roots(self) -> np.ndarray:
        """Root of every label ever made, [len(self)]."""
        return self.find(np.arange(self._count))

    def union(self, a: np.ndarray, b: np.ndarray, reason: str) -> None:
        """Join ``a[i]`` with ``b[i]``; a label that meets `FIXED` is frozen for ``reason``."""
        a, b = np.broadcast_arrays(a, b)
        a, b = a.ravel(), b.ravel()
        fixed = (a == FIXED) != (b == FIXED)
        if fixed.any():
            self.freeze(np.maximum(a, b)[fixed], reason)
        both = (a != FIXED) & (b != FIXED)
        a, b = a[both], b[both]
        while a.size:
            ra, rb = self.find(a), self.find(b)
            differ = ra != rb
            if not differ.any():
                return
            low = np.minimum(ra, rb)[differ]
            high = np.maximum(ra, rb)[differ]
            np.minimum.at(self._parent, high, low)
            a, b = a[differ], b[differ]

    def freeze(self, labels: np.ndarray, reason: str) -> None:
        """Mark labels (and with them all they are joined to) as not removable."""
        labels = np.unique(labels[labels != FIXED])
        if not labels.size:
            return
        if reason not in self._reason_ids:
            self._reason_ids[reason] = len(self.reasons)
            self.reasons.append(reason)
        self._frozen.append((labels, self._reason_ids[reason]))

    def frozen(self) -> np.ndarray:
        """For every root label the index of its first reason, -1 where removable, [len(self)]."""
        out = np.full(self._count, -1, dtype=np.int64)
        for labels, reason in reversed(self._frozen):
            out[self.find(labels)] = reason
        return out


def varying(plane: Plane) -> tuple[int, ...]:
    """Dimensions along which the labels of a plane change."""
    return tuple(d for d, n in enumerate(plane.shape) if n > 1)


def compress(labels: Labels, plane: Plane) -> Plane | None:
    """Shrink a plane to size 1 wherever its labels do not change; None when nothing is labelled."""
    for dim, size in enumerate(plane.shape):
        if size > 1 and plane.stride(dim) == 0:
            plane = plane.narrow(dim, 0, 1)
    if all(n == 1 for n in plane.shape):
        _collapsed(labels, plane)
        return None
    rooted = torch.from_numpy(labels.find(plane.contiguous().numpy()))
    for dim, size in enumerate(rooted.shape):
        if size > 1 and bool((rooted == rooted.narrow(dim, 0, 1)).all()):
            rooted = rooted.narrow(dim, 0, 1)
            plane = plane.narrow(dim, 0, 1)
    if rooted.numel() == 1:
        _collapsed(labels, plane)
        return None
    return plane.contiguous()


def _collapsed(labels: Labels, plane: Plane) -> None:
    """All positions are one unit: nothing is left to choose, so the unit is frozen."""
    reason = "all its units are tied together, so there is nothing to choose"
    labels.freeze(plane.reshape(-1).numpy(), reason)


def compress_all(labels: Labels, planes: Sequence[Plane]) -> Planes:
    """`compress` over several planes, dropping those that came out unlabelled or repeated."""
    out: list[Tensor] = []
    seen: list[np.ndarray] = []
    for plane in planes:
        small = compress(labels, plane)
        if small is None:
            continue
        root = labels.find(small.numpy())
        if not any(np.array_equal(root, other) for other in seen):
            out.append(small)
            seen.append(root)
    return tuple(out)


def expand_ndim(plane: Plane, ndim: int) -> Plane:
    """Prepend size-1 dimensions as broadcasting does."""
    return plane.reshape((1,) * (ndim - plane.ndim) + tuple(plane.shape))
