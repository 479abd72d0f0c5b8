"""Greedy allocation against brute force over all plans of small problems."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from rlprune.compaction import discover
from rlprune.space import Space, allocate, exchange
from tests.search.analytic_problem import chain

LEGAL = [tuple(range(1, 7)), (2, 4, 6, 8), tuple(range(0, 6))]


def convex(seed: int) -> list[np.ndarray]:
    """Falling convex curves, ``[width + 1]``."""
    rng = np.random.default_rng(seed)
    steps = [np.sort(rng.uniform(0.1, 3.0, widths[-1]))[::-1] for widths in LEGAL]
    return [np.concatenate([np.cumsum(step[::-1])[::-1], [0.0]]) for step in steps]


def linear(seed: int, limits: list[float]):
    """``cost / limit`` of budgets that are sums over groups, relative to the dense costs."""
    weights = np.random.default_rng(100 + seed).uniform(0.5, 2.0, (len(LEGAL), len(limits)))
    dense = np.array([widths[-1] for widths in LEGAL]) @ weights
    return lambda rows: np.asarray(rows) @ weights / (dense * np.array(limits))


def damage(curves: list[np.ndarray], widths: tuple[int, ...]) -> float:
    return float(sum(curve[width] for curve, width in zip(curves, widths, strict=True)))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("limit", [0.35, 0.5, 0.8])
def test_the_plan_is_the_best_of_its_cost_and_one_step_from_the_best(
    seed: int, limit: float
) -> None:
    curves, costs = convex(seed), linear(seed, [limit])
    found = allocate(curves, LEGAL, costs)
    plans = list(product(*LEGAL))
    cost = costs(plans)[:, 0]
    spent = costs([found])[0, 0]
    assert spent <= 1
    no_dearer = [p for p, c in zip(plans, cost, strict=True) if c <= spent + 1e-9]
    assert damage(curves, found) == pytest.approx(min(damage(curves, p) for p in no_dearer))
    best = min(damage(curves, p) for p, c in zip(plans, cost, strict=True) if c <= 1)
    steps = []
    for g, widths in enumerate(LEGAL):
        place = widths.index(found[g])
        if place + 1 < len(widths):
            steps.append((*found[:g], widths[place + 1], *found[g + 1 :]))
    before = [step for step in steps if costs([step])[0, 0] > 1]
    assert min(damage(curves, step) for step in before) <= best <= damage(curves, found)


def test_a_dent_of_a_curve_is_passed_over() -> None:
    curves = [np.array([9.0, 8.0, 8.0, 8.0, 0.0]), np.array([4.0, 3.0, 2.0, 1.0, 0.0]) * 3]
    legal = [(1, 2, 3, 4)] * 2
    found = allocate(curves, legal, lambda rows: np.asarray(rows).sum(1, keepdims=True) / 5)
    assert found == (1, 4)


@pytest.mark.parametrize("limits", [[0.5, 0.9], [0.9, 0.5], [0.4, 0.4], [0.3, 0.6, 0.5]])
def test_every_one_of_several_budgets_is_met_by_legal_widths(limits: list[float]) -> None:
    for seed in range(5):
        costs = linear(seed, limits)
        found = allocate(convex(seed), LEGAL, costs)
        assert (costs([found]) <= 1).all()
        assert all(width in widths for width, widths in zip(found, LEGAL, strict=True))
        assert all(type(width) is int for width in found)


def test_the_dearest_budget_decides_who_shrinks() -> None:
    curves = [np.linspace(1, 0, 11)] * 2
    legal = [tuple(range(1, 11))] * 2
    found = allocate(curves, legal, lambda rows: np.asarray(rows) / np.array([5.0, 100.0]))
    assert found == (5, 10)


def test_products_of_widths_are_priced_as_they_are() -> None:
    curves = [np.linspace(1, 0, 11), np.linspace(1.5, 0, 11)]
    legal = [tuple(range(1, 11))] * 2
    asked: list[np.ndarray] = []

    def costs(rows: np.ndarray) -> np.ndarray:
        asked.append(np.array(rows))
        return rows.prod(1, keepdims=True) / 40.0

    found = allocate(curves, legal, costs)
    assert np.prod(found) <= 40
    assert found[0] < found[1]
    assert all((batch[0] >= batch).all() for batch in asked)


def test_nothing_to_save_keeps_the_full_widths() -> None:
    assert allocate(convex(0), LEGAL, linear(0, [1.0])) == (6, 8, 5)


def test_what_cannot_be_met_ends_at_the_smallest_widths() -> None:
    assert allocate(convex(0), LEGAL, linear(0, [0.01])) == (1, 2, 0)
    constant = allocate(convex(0), LEGAL, lambda rows: np.full((len(rows), 1), 2.0))
    assert constant == (1, 2, 0)


def test_flat_curves_shrink_what_saves_most() -> None:
    flat = [np.zeros(11)] * 2
    legal = [tuple(range(1, 11))] * 2
    found = allocate(flat, legal, lambda rows: rows @ np.array([[1.0], [9.0]]) / 60.0)
    assert found == (10, 5)


def test_a_choice_of_many_widths_takes_few_steps() -> None:
    calls = 0

    def costs(rows: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return rows.sum(1, keepdims=True) / 2000.0

    legal = [tuple(range(1, 4097))] * 2
    found = allocate([np.linspace(1, 0, 4097) ** 2] * 2, legal, costs)
    assert calls < 120
    assert 1800 < sum(found) <= 2000


def tiled(rows: np.ndarray) -> np.ndarray:
    """Tiles of four units, in three quarters of the dense number."""
    return np.ceil(np.asarray(rows) / 4).sum(axis=1, keepdims=True) / 4.5


def test_where_cost_has_plateaus_the_cheapest_damage_per_tile_goes_first() -> None:
    legal = [tuple(range(1, 9))] * 3
    dear, cheap = np.linspace(80.0, 0.0, 9), np.linspace(8.0, 0.0, 9)
    found = allocate([dear, cheap, cheap], legal, tiled)
    assert found[0] == 8
    assert tiled(np.array([found]))[0, 0] <= 1


def test_exchanges_find_the_best_plan_of_a_stepped_cost() -> None:
    groups = discover(chain([8, 8, 8]), torch.zeros(1, 3, 2, 2))
    scores = {group.name: torch.arange(group.width).float() for group in groups.prunable}
    space = Space(groups, scores)
    curves = [np.linspace(top, 0.0, 9) ** 2 for top in (4.0, 2.0, 1.0)]

    def gain(choices: np.ndarray) -> np.ndarray:
        return -sum(curve[values] for curve, values in zip(curves, choices.T, strict=True))

    found = exchange(space, (4, 4, 8), gain, tiled, np.random.default_rng(0))
    plans = np.array([p for p in product(range(1, 9), repeat=3) if tiled(np.array([p])) <= 1])
    assert gain(np.array(found[:1]))[0] == pytest.approx(gain(plans).max())
    assert (tiled(np.array(found)) <= 1).all()
    assert len(set(found)) == len(found)
