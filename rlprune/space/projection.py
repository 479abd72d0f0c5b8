"""From wishes to a choice that meets every budget."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from rlprune.errors import PlanError
from rlprune.space.priced import Priced
from rlprune.space.space import KEPT, Choice, Space

_BISECTIONS = 40
_BLACK_BOX_CALLS = 10
_CLOSE_ENOUGH = 0.005
_TRADES = 4
_MOST_TRADING = 50


def uniform(problem: Priced) -> tuple[float, Choice]:
    """The largest uniform keep ratio that meets every budget.

    Args:
        problem: knows what plans cost.

    Returns:
        The ratio in [0, 1], and the choice nearest to it.
    """
    return _onto_budgets(problem, np.ones(len(problem.space)), 1.0)[1:]


def project(problem: Priced, ratios: Sequence[float] | np.ndarray) -> Choice:
    """Scale keep ratios by one common factor onto the budgets, then fill what rounding left.

    The result is as large as the tightest budget allows: ratios that ask for too little are
    scaled up as well, decisions at their bounds staying there. Budgets with a structural estimate
    are met by bisection; black boxes are called a few times, and are never left violated unless
    the smallest network violates them too. Filling follows the common scale on: the decision whose
    next value is due at the smallest factor goes first, and those whose step does not fit any
    more are passed over, until the tightest budget has less than 0.5 % slack. Where steps are too
    coarse for that, pairs of decisions trade a step each.

    Branches are not scaled: they stay where their ratio is above a half. Where the widths alone
    cannot meet the budgets, branches go too, those wanted least (then the later ones) first.

    Args:
        problem: knows what plans cost.
        ratios: ``[n]`` keep ratio per decision, at least 0.

    Returns:
        A choice that meets every budget.

    Raises:
        PlanError: The number of ratios differs from the number of decisions.
    """
    space = problem.space
    if len(ratios) != len(space):
        raise PlanError(f"{len(ratios)} ratios given for {len(space)} decisions")
    ray, _, choice = _onto_budgets(problem, np.asarray(ratios, dtype=np.float64), None)
    filled = _fill(problem, ray, choice)
    if filled != choice and _has_black_box(problem) and _excess(problem, filled) > 0:
        return choice
    return filled


class _Ray:
    """The choices that a common factor on some ratios leads to, branches as they are."""

    def __init__(self, space: Space, ratios: np.ndarray, kept: np.ndarray) -> None:
        self.space = space
        self.targets = np.maximum(ratios, 1e-6) * space.sizes
        self.free = ~space.branches
        self._fixed = np.flatnonzero(space.branches)
        self._branches = kept.astype(np.int64)
        inside = space.inside if len(self._fixed) else np.full(len(space), -1)
        self.idle = (inside >= 0) & ~kept[inside]
        self.free &= ~self.idle
        self._lowest = np.array(space.smallest)

    @property
    def top(self) -> float:
        """The factor at which every width is at its largest."""
        if not self.free.any():
            return 1.0
        return float((np.array(self.space.largest) / self.targets)[self.free].max())

    def at(self, scale: float) -> Choice:
        """The choice at a factor."""
        values = self.space.nearest_values(scale * self.targets)
        if len(self._fixed):
            values[self._fixed] = self._branches[self._fixed]
            values[self.idle] = self._lowest[self.idle]
        return tuple(values.tolist())


def _onto_budgets(
    problem: Priced, ratios: np.ndarray, top: float | None
) -> tuple[_Ray, float, Choice]:
    """The ray of some ratios, its largest factor up to ``top`` that meets every budget, the choice.

    Branches are dropped as far as the widths alone do not suffice.
    """
    space = problem.space
    kept = ratios > KEPT
    order = sorted(np.flatnonzero(space.branches & kept).tolist(), key=lambda at: (ratios[at], -at))
    while True:
        ray = _Ray(space, ratios, kept)
        scale, choice = _largest_scale(problem, ray, ray.top if top is None else top)
        if not order or _excess(problem, choice) <= 0:
            return ray, scale, choice
        kept = kept.copy()
        kept[order.pop(0)] = False


def _has_black_box(problem: Priced) -> bool:
    return any(budget.estimate is None for budget in problem.budgets)


def _excess(problem: Priced, choice: Choice) -> float:
    """Largest violation over all budgets."""
    return max(problem.violations(problem.space.plan(choice)).values())


def _estimated_excess(problem: Priced, choice: Choice) -> float:
    """Largest violation over the budgets with a structural estimate; -1 without any."""
    widths = problem.space.counts(choice)
    return max(
        (
            budget.violation(budget.estimate(widths))
            for budget in problem.budgets
            if budget.estimate is not None
        ),
        default=-1.0,
    )


def _largest_scale(problem: Priced, ray: _Ray, top: float) -> tuple[float, Choice]:
    """The largest factor up to ``top`` at which every budget is met, and the choice there."""
    scale, choice = top, ray.at(top)
    if _estimated_excess(problem, choice) > 0:
        scale, choice = _bisect(problem, ray, top)
    if _has_black_box(problem):
        scale, choice = _search_black_box(problem, ray, scale, choice)
    return scale, choice


def _bisect(problem: Priced, ray: _Ray, top: float) -> tuple[float, Choice]:
    low, high = 0.0, top
    best, too_large = ray.at(low), ray.at(high)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        choice = ray.at(middle)
        if choice in (best, too_large):
            fits = choice == best
        else:
            fits = _estimated_excess(problem, choice) <= 0
        if fits:
            low, best = middle, choice
        else:
            high, too_large = middle, choice
        if high - low < 1e-6 * high:
            break
    return low, best


def _search_black_box(
    problem: Priced, ray: _Ray, scale: float, choice: Choice
) -> tuple[float, Choice]:
    """Shrink until the black boxes hold too: regula falsi (Illinois), few calls."""
    excess = _excess(problem, choice)
    if excess <= 0:
        return scale, choice
    low, best = 0.0, ray.at(0.0)
    low_excess, high, high_excess = _excess(problem, best), scale, excess
    side = 0
    for call in range(_BLACK_BOX_CALLS):
        if low_excess >= 0 or call % 3 == 2:
            middle = (low + high) / 2
        else:
            middle = low + (high - low) * low_excess / (low_excess - high_excess)
            middle = min(max(middle, low + 0.02 * (high - low)), high - 0.02 * (high - low))
        choice = ray.at(middle)
        excess = _excess(problem, choice)
        if excess > 0:
            high, high_excess = middle, excess
            if side < 0:
                low_excess /= 2
            side = -1
        else:
            low, low_excess, best = middle, excess, choice
            if excess > -_CLOSE_ENOUGH:
                break
            if side > 0:
                high_excess /= 2
            side = 1
    return low, best


def _fill(problem: Priced, ray: _Ray, choice: Choice) -> Choice:
    """Grow single decisions into the slack the common factor left, by estimates alone."""
    if _estimated_excess(problem, choice) <= -1.0:
        return choice
    current = list(choice)
    queue: list[tuple[float, int, int]] = []

    def queue_next(at: int) -> None:
        legal = problem.space.decisions[at].legal
        place = bisect_left(legal, current[at]) + 1
        if place < len(legal):
            due = (current[at] + legal[place]) / 2 / ray.targets[at]
            heapq.heappush(queue, (due, at, legal[place]))

    for at in np.flatnonzero(ray.free).tolist():
        queue_next(at)
    while queue:
        _, at, wider = heapq.heappop(queue)
        before, current[at] = current[at], wider
        excess = _estimated_excess(problem, tuple(current))
        if excess > 0:
            current[at] = before
            continue
        if excess > -_CLOSE_ENOUGH:
            return tuple(current)
        queue_next(at)
    return _trade(problem, ray, tuple(current))


def _trade(problem: Priced, ray: _Ray, choice: Choice) -> Choice:
    """Narrow one decision by a step and widen another, while that leaves less slack.

    Many decisions always hold one fine enough to fill with, so only few are tried in pairs.
    """
    if int(ray.free.sum()) > _MOST_TRADING:
        return choice
    excess = _estimated_excess(problem, choice)
    for _ in range(_TRADES):
        if excess > -_CLOSE_ENOUGH:
            break
        trades = _traded(problem.space, ray, choice)
        if not len(trades):
            break
        left = _estimated_excesses(problem, trades)
        met = np.where(left <= 0, left, -np.inf)
        if met.max() <= excess:
            break
        excess = float(met.max())
        choice = max(tuple(row) for row in trades[met == excess].tolist())
    return choice


def _estimated_excesses(problem: Priced, choices: np.ndarray) -> np.ndarray:
    """:func:`_estimated_excess` of many choices ``[P, n]``."""
    widths = problem.space.widths(choices)
    known = [budget for budget in problem.budgets if budget.estimate is not None]
    found = [b.estimate.many(widths) / b.limit - 1.0 for b in known if b.estimate is not None]
    return np.asarray(np.max(found, axis=0))


def _traded(space: Space, ray: _Ray, choice: Choice) -> np.ndarray:
    """Every way ``[P, n]`` to take a step from one decision and give one or two to another."""
    free = np.flatnonzero(ray.free).tolist()
    legal = [decision.legal for decision in space.decisions]
    places = [bisect_left(values, value) for values, value in zip(legal, choice, strict=True)]
    moves = [
        (down, legal[down][places[down] - 1], up, wider)
        for down in free
        for up in free
        if up != down and places[down] > 0
        for wider in legal[up][places[up] + 1 : places[up] + 3]
    ]
    rows = np.tile(choice, (len(moves), 1))
    for row, (down, narrower, up, wider) in zip(rows, moves, strict=True):
        row[down], row[up] = narrower, wider
    return rows
