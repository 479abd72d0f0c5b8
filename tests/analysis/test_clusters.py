"""Correlation clusters against the published recipe, written out here with numpy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from rlprune.analysis import CUTS, Dendrogram, cluster_sweep, clusters, correlation
from rlprune.errors import ConfigError, DataError


def activations(tokens: int = 600, neurons: int = 60, seed: int = 0) -> np.ndarray:
    """Neurons that share causes, with three dead ones, three copies and a negated one."""
    generator = np.random.default_rng(seed)
    causes = generator.normal(size=(tokens, neurons // 4))
    mixed = causes @ generator.normal(size=(neurons // 4, neurons)) ** 3
    found = mixed + generator.normal(size=(tokens, neurons))
    found[:, [5, 17, 30]] = 0.0
    found[:, [8, 9, 40]] = found[:, [2]]
    found[:, 41] = -found[:, 3]
    return found


def published(x: np.ndarray, cut: float) -> np.ndarray:
    """Dalvi et al. 2020: NaN as 0, 1 - |r|, average linkage, cut by distance."""
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.nan_to_num(np.corrcoef(x.T))
    r = (r + r.T) / 2
    np.fill_diagonal(r, 1)
    return fcluster(linkage(squareform(1 - np.abs(r)), "average"), cut, criterion="distance")


@pytest.mark.parametrize("seed", range(3))
def test_partitions_are_those_of_the_published_recipe_at_nine_cuts(seed: int) -> None:
    x = activations(seed=seed)
    sweep = cluster_sweep(x)
    assert sweep.shape == (9, 60)
    for cut, labels in zip(CUTS, sweep, strict=True):
        np.testing.assert_array_equal(labels, published(x, cut))
        np.testing.assert_array_equal(labels, clusters(torch.from_numpy(x), cut))
    assert len({tuple(labels) for labels in sweep}) > 5


def test_dead_neurons_are_alone_and_copies_together() -> None:
    labels = clusters(activations(), 0.1)
    for dead in (5, 17, 30):
        assert (labels == labels[dead]).sum() == 1
    assert len({labels[2], labels[8], labels[9], labels[40]}) == 1
    assert labels[3] == labels[41]


def test_correlation_is_numpys_whatever_the_pieces() -> None:
    x = activations() * 3 + np.linspace(-1e4, 1e4, 60)
    alive = [i for i in range(60) if i not in (5, 17, 30)]
    expected = np.corrcoef(x[:, alive].T)
    for chunk in (1, 7, 600, 4096):
        found = correlation(x, chunk)
        np.testing.assert_allclose(found[np.ix_(alive, alive)], expected, rtol=0, atol=1e-8)
        assert not found[5, :5].any()
        assert not found[5, 6:].any()


def test_a_constant_that_floats_cannot_hold_is_dead() -> None:
    x = activations()
    x[:, 0] = 0.1
    found = correlation(x, 64)
    assert not found[0, 1:].any()


def test_the_medoid_is_the_member_most_like_the_others() -> None:
    x = activations()
    tree = Dendrogram.of(x)
    labels = tree.labels(0.6)
    medoids = tree.medoids(labels)
    assert len(medoids) == labels.max()
    r = np.abs(tree.correlation)
    for cluster, medoid in enumerate(medoids, start=1):
        members = np.flatnonzero(labels == cluster)
        assert medoid in members
        sums = [r[member, members].sum() for member in members]
        assert r[medoid, members].sum() == pytest.approx(max(sums), abs=1e-12)


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(ConfigError, match=r"cut is 1\.5"):
        clusters(activations(), 1.5)
    with pytest.raises(DataError, match="shape"):
        clusters(np.zeros(3))
    x = activations()
    x[123, 4] = np.nan
    with pytest.raises(DataError, match="row 123"):
        clusters(x)
