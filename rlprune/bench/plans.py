"""Diverse plans of equal cost, for judging scores."""

from __future__ import annotations

import numpy as np

from rlprune.plan import Plan
from rlprune.problem import Problem
from rlprune.search import search
from rlprune.space import project, uniform


def diverse(
    problem: Problem, count: int, good_evaluations: int, seed: int
) -> list[tuple[str, Plan]]:
    """The uniform plan, good plans, and random ones of three kinds, all filled to the budgets.

    A quarter are spread over the ranks of what a cross-entropy search found; the rest are random:
    independent ratios, ratios that follow a smooth curve over depth, and the uniform plan
    disturbed.

    Args:
        problem: The evaluator.
        count: How many.
        good_evaluations: Unique evaluations of that search.
        seed: Decides the random ones and the search.

    Returns:
        Kind and plan, all distinct.
    """
    generator = np.random.default_rng(seed)
    found: dict[Plan, str] = {}

    def add(kind: str, ratios: np.ndarray) -> None:
        found.setdefault(problem.space.plan(project(problem, ratios)), kind)

    size = len(problem.space)
    ratio, _ = uniform(problem)
    add("uniform", np.full(size, ratio))
    for plan in _good(problem, max(count // 4, 1), good_evaluations, seed):
        if len(found) < count:
            found.setdefault(plan, "search")
    draws = 0
    while len(found) < count and draws < 50 * count:
        kind = ("independent", "smooth", "disturbed")[draws % 3]
        add(kind, _ratios(kind, size, ratio, generator))
        draws += 1
    return [(kind, plan) for plan, kind in found.items()][:count]


def _good(problem: Problem, count: int, evaluations: int, seed: int) -> list[Plan]:
    """Plans at evenly spaced ranks of the better half of a search's feasible evaluations."""
    if evaluations < 1:
        return []
    result = search(problem, "cem", evaluations, seed)
    ranked = sorted((e for e in result.ledger if e.feasible), key=lambda e: -e.quality)
    half = ranked[: max(len(ranked) // 2, 1)]
    at = np.unique(np.linspace(0, len(half) - 1, count).round().astype(int))
    return [half[position].plan for position in at]


def _ratios(kind: str, size: int, ratio: float, generator: np.random.Generator) -> np.ndarray:
    if kind == "independent":
        return generator.uniform(0.1, 1.0, size)
    if kind == "disturbed":
        return np.clip(ratio * np.exp(0.35 * generator.standard_normal(size)), 0.05, 1.0)
    depth = np.linspace(-1.0, 1.0, size)
    slope, bend = generator.uniform(-0.45, 0.45, 2)
    curve = 0.55 + slope * depth + bend * (depth**2 - 1 / 3)
    return np.clip(curve + 0.05 * generator.standard_normal(size), 0.05, 1.0)
