"""Projection onto black boxes: the model proposes, one or two measurements decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlprune.space.modelled import Modelled
from rlprune.space.projection import project, uniform

if TYPE_CHECKING:
    from rlprune.space.costs import CostModel
    from rlprune.space.priced import Priced
    from rlprune.space.space import Choice

_MEASUREMENTS = 4
_CLOSE_ENOUGH = 0.005
_GOOD_ENOUGH = 0.02
_SHY = 0.002


def onto_budgets(
    problem: Priced, ratios: np.ndarray, costs: CostModel, *, even: bool = False
) -> Choice:
    """The choice that ratios lead to on the budgets, as :func:`rlprune.space.project` defines it.

    Where all budgets have formulas it is that function. Otherwise the projection is made on what
    was learned of the black boxes, its result measured, the limit that the model sees corrected by
    how far it was off, and the projection repeated, until a measured choice meets every budget
    with little slack. Where the model does not get there, the black boxes alone decide.

    Args:
        problem: knows what plans cost.
        ratios: ``[n]`` keep ratios.
        costs: the cost model; it learns from what is measured.
        even: whether all ratios are alike and none may exceed 1, as :func:`uniform` does.

    Returns:
        A choice that meets every budget.
    """

    def exact() -> Choice:
        return uniform(problem)[1] if even else project(problem, ratios)

    if all(budget.estimate is not None for budget in problem.budgets):
        return exact()
    limits = np.array([budget.limit for budget in problem.budgets])
    factors = np.ones(len(limits))
    best: tuple[float, Choice] | None = None
    tried: set[Choice] = set()
    for attempt in range(_MEASUREMENTS):
        view = Modelled(problem, costs, factors)
        choice = uniform(view)[1] if even else project(view, ratios)
        choice = choice if even else free_steps(view, choice)
        if choice in tried:
            break
        tried.add(choice)
        plan = problem.space.plan(choice)
        real = np.array(list(problem.costs(plan).values()))
        guessed = np.array(list(view.costs(plan).values()))
        violation = float((real / limits - 1).max())
        if violation <= 0 and (best is None or violation > best[0]):
            best = violation, choice
        enough = _CLOSE_ENOUGH if attempt == 0 else _GOOD_ENOUGH
        if best is not None and best[0] > -enough:
            break
        off = np.clip(guessed / np.maximum(real, 1e-300), 0.25, 4.0)
        factors = off * (1.0 - _SHY * attempt * (violation > 0))
    return exact() if best is None else best[1]


def expected(problem: Priced, ratios: np.ndarray, costs: CostModel) -> Choice:
    """What :func:`onto_budgets` most likely leads to; nothing is measured."""
    view = Modelled(problem, costs, np.ones(len(problem.budgets)))
    return free_steps(view, project(view, ratios))


def free_steps(view: Modelled, choice: Choice) -> Choice:
    """Raise decisions as far as that costs nothing: to the end of their plateau.

    Args:
        view: where every budget has a formula.
        choice: meets every budget there, or as nearly as can be.
    """
    space = view.space
    current = np.array(choice)
    start = _relative(view, current[None])[0]
    for at in np.flatnonzero(~space.branches).tolist():
        inside = space.inside[at] if space.depth else -1
        if inside >= 0 and current[inside] == 0:
            continue
        wider = [value for value in space.decisions[at].legal if value > current[at]]
        if not wider:
            continue
        rows = np.tile(current, (len(wider), 1))
        rows[:, at] = wider
        free = (_relative(view, rows) <= start * (1 + 1e-9)).all(axis=1)
        steps = len(free) if free.all() else int(np.argmin(free))
        if steps:
            current[at] = wider[steps - 1]
    return tuple(current.tolist())


def raised(problem: Priced, choice: Choice) -> Choice:
    """Raise single decisions by steps, measuring each, while every budget stays met.

    Afterwards no decision can be raised by one step without a budget being broken; in particular
    none without raising a cost. Budgets read off a clock are left out: their values repeat no
    better than a step changes them.

    Args:
        problem: knows what plans cost.
        choice: meets every budget.
    """
    space = problem.space
    if any(budget.measured for budget in problem.budgets):
        return choice
    current = list(choice)
    rest = np.flatnonzero(~space.branches).tolist()
    while rest:
        again = []
        for at in rest:
            inside = space.inside[at] if space.depth else -1
            wider = [value for value in space.decisions[at].legal if value > current[at]]
            if not wider or (inside >= 0 and current[inside] == 0):
                continue
            before, current[at] = current[at], wider[0]
            if max(problem.violations(space.plan(current)).values()) <= 0:
                again.append(at)
            else:
                current[at] = before
        rest = again
    return tuple(current)


def _relative(view: Modelled, choices: np.ndarray) -> np.ndarray:
    """``cost / limit`` ``[P, m]`` of choices ``[P, n]``."""
    widths = view.space.widths(choices)
    columns = [b.estimate.many(widths) / b.limit for b in view.budgets if b.estimate is not None]
    return np.stack(columns, axis=1)
