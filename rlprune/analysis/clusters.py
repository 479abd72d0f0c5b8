"""Neurons that say the same: correlation clusters and the member that stands for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rlprune.analysis.correlation import correlation
from rlprune.errors import ConfigError

CUTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The cuts that a sweep looks at."""


@dataclass(frozen=True)
class Dendrogram:
    """Average-linkage tree over the distances ``1 - |r|``; every cut is read from one tree.

    Attributes:
        correlation: ``[neurons, neurons]``.
    """

    correlation: np.ndarray

    @staticmethod
    def of(activations: Any) -> Dendrogram:
        """The tree of some activations, ``[tokens, neurons]``."""
        return Dendrogram(correlation(activations))

    @cached_property
    def linkage(self) -> np.ndarray:
        """SciPy's linkage matrix, ``[neurons - 1, 4]``."""
        from scipy.cluster.hierarchy import linkage

        n = len(self.correlation)
        upper = np.triu_indices(n, 1)
        return np.asarray(linkage(1.0 - np.abs(self.correlation[upper]), method="average"))

    def labels(self, cut: float) -> np.ndarray:
        """Cluster of every neuron, counted from 1, ``[neurons]``.

        Args:
            cut: neurons whose (average) distance is at most this are one cluster.

        Raises:
            ConfigError: the cut is outside 0..1.
        """
        from scipy.cluster.hierarchy import fcluster

        if not 0 <= cut <= 1:
            raise ConfigError(f"cut is {cut}; a distance 1 - |r| lies in 0..1")
        if len(self.correlation) == 1:
            return np.ones(1, dtype=np.int64)
        return np.asarray(fcluster(self.linkage, cut, criterion="distance"), dtype=np.int64)

    def medoids(self, labels: np.ndarray) -> np.ndarray:
        """Of every cluster the neuron that correlates best with the others, ``[clusters]``.

        Args:
            labels: from :meth:`labels`.
        """
        found = []
        by_cluster = np.argsort(labels, kind="stable")
        ends = np.cumsum(np.bincount(labels)[1:])
        for members in np.split(by_cluster, ends[:-1]):
            alike = np.abs(self.correlation[np.ix_(members, members)]).sum(1)
            found.append(members[int(alike.argmax())])
        return np.array(found, dtype=np.int64)


def clusters(activations: Any, cut: float = 0.3) -> np.ndarray:
    """Correlation clusters of neurons (Dalvi, Sajjad, Durrani, Belinkov, EMNLP 2020, section 3).

    Args:
        activations: ``[tokens, neurons]`` as an array, a tensor or a recording.
        cut: neurons whose average distance ``1 - |r|`` is at most this belong together.

    Returns:
        Cluster of every neuron, counted from 1, ``[neurons]``. Neurons that never change are
        alone.

    Raises:
        ConfigError: The cut is outside 0..1.
        DataError: The activations are not a finite matrix.
    """
    return Dendrogram.of(activations).labels(cut)


def cluster_sweep(activations: Any, cuts: Sequence[float] = CUTS) -> np.ndarray:
    """:func:`clusters` at several cuts from one pass and one tree, ``[cuts, neurons]``."""
    tree = Dendrogram.of(activations)
    return np.stack([tree.labels(cut) for cut in cuts])
