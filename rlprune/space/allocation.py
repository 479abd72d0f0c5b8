"""The choice that does the least predicted damage within the budgets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

_STEPS = 48
_NOTHING = 1e-12


def allocate(
    curves: Sequence[np.ndarray],
    legal: Sequence[Sequence[int]],
    relative_costs: Callable[[np.ndarray], np.ndarray],
) -> tuple[int, ...]:
    """Shrinks the decision that pays least per cost saved, until every budget is met.

    Greedy on the convex hulls of the curves, which is the Lagrangian solution of the separable
    problem up to its last step (Shoham and Gersho, IEEE TASSP 1988). Costs are those of the whole
    plan at every step, so that products of widths are priced as they are. Several budgets are
    weighed by how far each is still exceeded. Of equal prices the largest saving wins. A step that
    saves nothing, as most do where cost has plateaus, is made longer until it does.

    Args:
        curves: per decision the predicted damage by value, ``[size + 1]`` (see
            :func:`rlprune.sensitivity.sensitivity`).
        legal: per decision its legal values, ascending.
        relative_costs: ``[P, n]`` values -> ``[P, m]`` cost / limit; free to call.

    Returns:
        Legal values. Where no plan meets the budgets they are the smallest there are.
    """
    hulls = [_hull(curve, values) for curve, values in zip(curves, legal, strict=True)]
    steps = [max(1, len(values) // _STEPS) for values in legal]
    strides, places = list(steps), [len(values) - 1 for values in legal]
    while True:
        now = np.array([values[place] for values, place in zip(legal, places, strict=True)])
        movable = [g for g, place in enumerate(places) if place > 0]
        if not movable:
            return tuple(int(value) for value in now)
        lower = {g: max(places[g] - strides[g], 0) for g in movable}
        rows = np.tile(now, (len(movable) + 1, 1))
        for row, g in enumerate(movable, start=1):
            rows[row, g] = legal[g][lower[g]]
        costs = relative_costs(rows)
        excess = np.maximum(costs[0] - 1.0, 0.0)
        if not excess.any():
            return tuple(int(value) for value in now)
        saved = (costs[0] - costs[1:]) @ (excess / excess.sum())
        useless = [g for g, gain in zip(movable, saved, strict=True) if gain <= _NOTHING]
        longer = [g for g in useless if lower[g] > 0]
        for g in longer:
            strides[g] *= 2
        if longer and len(useless) == len(movable):
            continue
        paid = np.array([hulls[g][lower[g]] - hulls[g][places[g]] for g in movable])
        price = np.where(saved > _NOTHING, paid / np.maximum(saved, _NOTHING), np.inf)
        best = movable[int(np.lexsort((paid, -saved, price))[0])]
        places[best], strides[best] = lower[best], steps[best]


def _hull(curve: np.ndarray, legal: Sequence[int]) -> np.ndarray:
    """The largest convex function below a curve, at the legal values."""
    x, y = np.asarray(legal, dtype=np.float64), np.asarray(curve)[list(legal)]
    corners: list[int] = []
    for at in range(len(x)):
        while len(corners) > 1:
            a, b = corners[-2:]
            if (y[b] - y[a]) * (x[at] - x[a]) < (y[at] - y[a]) * (x[b] - x[a]):
                break
            corners.pop()
        corners.append(at)
    return np.interp(x, x[corners], y[corners])
