"""Orders and sets of neurons against the published definitions, written out literally."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from rlprune.analysis import minimal_set, probeless, probeless_by_class
from rlprune.analysis.ranking import MASSES
from rlprune.errors import ConfigError, DataError


def labelled(seed: int, classes: int = 6, neurons: int = 80) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, 900)
    x = generator.normal(size=(900, neurons))
    x += generator.normal(size=(classes, neurons))[labels] * generator.random(neurons)
    x[:, [4, 50]] = 0.0
    x[:, [7, 20]] = x[:, [1]]
    return x, labels


def published_order(x: np.ndarray, labels: np.ndarray) -> list[int]:
    """Antverg and Belinkov 2022: sum over pairs of classes of |mu_a - mu_b|."""
    means = [np.mean([row for row, own in zip(x, labels, strict=True) if own == label], axis=0)
             for label in dict.fromkeys(labels.tolist())]  # fmt: skip
    total = np.zeros(x.shape[1])
    for one, other in combinations(means, 2):
        total += np.abs(one - other)
    return np.argsort(total)[::-1].tolist()


def published_set(weights: np.ndarray, mass: float) -> set[int]:
    """Dalvi et al. 2019: the greatest weights of each class until they hold the mass; union."""
    union: set[int] = set()
    for row in np.abs(weights):
        held, total = np.zeros((), row.dtype), np.sum(row)
        for neuron in np.argsort(row)[::-1]:
            union.add(int(neuron))
            held = held + row[neuron]
            if held >= total * mass:
                break
    return union


@pytest.mark.parametrize("seed", range(4))
def test_probeless_order_is_the_published_one(seed: int) -> None:
    x, labels = labelled(seed)
    assert probeless(x, labels).tolist() == published_order(x, labels)
    assert set(probeless(x, labels)[-2:].tolist()) == {4, 50}


def test_two_classes_rank_by_the_distance_of_their_means() -> None:
    x, labels = labelled(0, classes=2)
    apart = np.abs(x[labels == 0].mean(0) - x[labels == 1].mean(0))
    order = probeless(x, np.array(["number", "string"])[labels])
    assert (np.diff(apart[order]) <= 1e-12).all()
    by_class = probeless_by_class(x, labels)
    assert by_class[0].tolist() == by_class[1].tolist() == order.tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_minimal_sets_are_the_published_ones(dtype: type) -> None:
    weights = np.random.default_rng(1).normal(size=(5, 200)).astype(dtype) ** 3
    weights[:, 30] = weights[:, 60] = 0.0
    weights[:, 90] = weights[:, 91] = weights[:, 3]
    sizes = []
    for mass in MASSES:
        found = minimal_set(weights, mass)
        assert set(found.tolist()) == published_set(weights, mass)
        sizes.append(len(found))
    assert sizes == sorted(sizes)
    assert sizes[0] < 10 < sizes[-1]


def test_what_is_wrong_is_named() -> None:
    x, labels = labelled(0)
    with pytest.raises(DataError, match="899 labels for 900 tokens"):
        probeless(x, labels[1:])
    with pytest.raises(DataError, match="two classes"):
        probeless(x, np.ones(900))
    with pytest.raises(ConfigError, match="mass is 2"):
        minimal_set(x, 2)
