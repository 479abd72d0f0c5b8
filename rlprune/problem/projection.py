"""From wishes to legal widths that meet every budget."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from rlprune.errors import PlanError

if TYPE_CHECKING:
    from rlprune.budgets import ResolvedBudget
    from rlprune.structure import Group

Widths = tuple[int, ...]

_BISECTIONS = 40
_BLACK_BOX_CALLS = 10
_CLOSE_ENOUGH = 0.005
_TRADES = 4
_MOST_TRADING_GROUPS = 50


class Problem(Protocol):
    """The part of an evaluator that projection needs."""

    @property
    def decisions(self) -> tuple[Group, ...]:
        """The prunable groups."""

    @property
    def budgets(self) -> tuple[ResolvedBudget, ...]:
        """The budgets."""

    @property
    def legal(self) -> tuple[Widths, ...]:
        """Legal widths of every decision."""

    def violations(self, widths: Sequence[int]) -> dict[str, float]:
        """Relative excess over every budget."""


def nearest(choices: Sequence[int], width: float) -> int:
    """The legal width closest to ``width``, the smaller one on a tie."""
    at = bisect_left(choices, width)
    if at == 0:
        return choices[0]
    if at == len(choices):
        return choices[-1]
    below, above = choices[at - 1], choices[at]
    return below if width - below <= above - width else above


def uniform_widths(problem: Problem) -> tuple[float, Widths]:
    """The largest uniform keep ratio that meets every budget.

    Args:
        problem: The evaluator.

    Returns:
        The ratio in [0, 1], and every group's width at it (nearest legal width).
    """
    targets = [float(group.width) for group in problem.decisions]
    scale, widths = _largest_scale(problem, targets, 1.0)
    return scale, widths


def project(problem: Problem, ratios: Sequence[float]) -> Widths:
    """Scale keep ratios by one common factor onto the budgets, then fill what rounding left.

    The result is as large as the tightest budget allows: ratios that ask for too little are
    scaled up as well, groups at their bounds staying there. Budgets with a structural estimate
    are met by bisection; black boxes are called a few times, and are never left violated unless
    the smallest network violates them too. Filling follows the common scale on: the group whose
    next width is due at the smallest factor goes first, and groups whose step does not fit any
    more are passed over, until the tightest budget has less than 0.5 % slack. Where steps are too
    coarse for that, pairs of groups trade a step each.

    Args:
        problem: The evaluator.
        ratios: Keep ratio per decision, at least 0.

    Returns:
        Legal widths that meet every budget.

    Raises:
        PlanError: The number of ratios differs from the number of decisions.
    """
    decisions = problem.decisions
    if len(ratios) != len(decisions):
        raise PlanError(f"{len(ratios)} ratios given for {len(decisions)} prunable groups")
    targets = [
        max(float(ratio), 1e-6) * group.width
        for ratio, group in zip(ratios, decisions, strict=True)
    ]
    top = max(c[-1] / t for c, t in zip(problem.legal, targets, strict=True))
    _, widths = _largest_scale(problem, targets, top)
    filled = _fill(problem, targets, widths)
    if filled != widths and _has_black_box(problem) and _excess(problem, filled) > 0:
        return widths
    return filled


def _scaled(problem: Problem, targets: Sequence[float], scale: float) -> Widths:
    return tuple(
        nearest(choices, scale * target)
        for choices, target in zip(problem.legal, targets, strict=True)
    )


def _has_black_box(problem: Problem) -> bool:
    return any(budget.estimate is None for budget in problem.budgets)


def _excess(problem: Problem, widths: Widths) -> float:
    """Largest violation over all budgets."""
    return max(problem.violations(widths).values())


def _estimated_excess(problem: Problem, widths: Widths) -> float:
    """Largest violation over the budgets with a structural estimate; -1 without any."""
    return max(
        (
            budget.violation(budget.estimate(widths))
            for budget in problem.budgets
            if budget.estimate is not None
        ),
        default=-1.0,
    )


def _largest_scale(problem: Problem, targets: Sequence[float], top: float) -> tuple[float, Widths]:
    """The largest factor up to ``top`` whose widths meet every budget, and these widths."""
    scale, widths = top, _scaled(problem, targets, top)
    if _estimated_excess(problem, widths) > 0:
        scale, widths = _bisect(problem, targets, top)
    if _has_black_box(problem):
        scale, widths = _search_black_box(problem, targets, scale, widths)
    return scale, widths


def _bisect(problem: Problem, targets: Sequence[float], top: float) -> tuple[float, Widths]:
    low, high = 0.0, top
    best, too_large = _scaled(problem, targets, low), _scaled(problem, targets, high)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        widths = _scaled(problem, targets, middle)
        if widths in (best, too_large):
            fits = widths == best
        else:
            fits = _estimated_excess(problem, widths) <= 0
        if fits:
            low, best = middle, widths
        else:
            high, too_large = middle, widths
        if high - low < 1e-6 * high:
            break
    return low, best


def _search_black_box(
    problem: Problem, targets: Sequence[float], scale: float, widths: Widths
) -> tuple[float, Widths]:
    """Shrink until the black boxes hold too: regula falsi (Illinois), few calls."""
    excess = _excess(problem, widths)
    if excess <= 0:
        return scale, widths
    low, best = 0.0, _scaled(problem, targets, 0.0)
    low_excess, high, high_excess = _excess(problem, best), scale, excess
    side = 0
    for call in range(_BLACK_BOX_CALLS):
        if low_excess >= 0 or call % 3 == 2:
            middle = (low + high) / 2
        else:
            middle = low + (high - low) * low_excess / (low_excess - high_excess)
            middle = min(max(middle, low + 0.02 * (high - low)), high - 0.02 * (high - low))
        widths = _scaled(problem, targets, middle)
        excess = _excess(problem, widths)
        if excess > 0:
            high, high_excess = middle, excess
            if side < 0:
                low_excess /= 2
            side = -1
        else:
            low, low_excess, best = middle, excess, widths
            if excess > -_CLOSE_ENOUGH:
                break
            if side > 0:
                high_excess /= 2
            side = 1
    return low, best


def _fill(problem: Problem, targets: Sequence[float], widths: Widths) -> Widths:
    """Grow single groups into the slack the common factor left, by estimates alone."""
    if _estimated_excess(problem, widths) <= -1.0:
        return widths
    current = list(widths)
    queue: list[tuple[float, int, int]] = []

    def queue_next(group: int) -> None:
        choices = problem.legal[group]
        at = bisect_left(choices, current[group]) + 1
        if at < len(choices):
            due = (current[group] + choices[at]) / 2 / targets[group]
            heapq.heappush(queue, (due, group, choices[at]))

    for group in range(len(current)):
        queue_next(group)
    while queue:
        _, group, wider = heapq.heappop(queue)
        before, current[group] = current[group], wider
        excess = _estimated_excess(problem, tuple(current))
        if excess > 0:
            current[group] = before
            continue
        if excess > -_CLOSE_ENOUGH:
            return tuple(current)
        queue_next(group)
    return _trade(problem, tuple(current))


def _trade(problem: Problem, widths: Widths) -> Widths:
    """Narrow one group by a step and widen another, while that leaves less slack.

    Many groups always hold one fine enough to fill with, so only few are tried in pairs.
    """
    if len(widths) > _MOST_TRADING_GROUPS:
        return widths
    excess = _estimated_excess(problem, widths)
    for _ in range(_TRADES):
        if excess > -_CLOSE_ENOUGH:
            break
        trades = ((_estimated_excess(problem, trial), trial) for trial in _traded(problem, widths))
        found = max((pair for pair in trades if pair[0] <= 0), default=(excess, widths))
        if found[0] <= excess:
            break
        excess, widths = found
    return widths


def _traded(problem: Problem, widths: Widths) -> Iterator[Widths]:
    """Every way to take a step from one group and give one or two to another."""
    at = [bisect_left(c, width) for c, width in zip(problem.legal, widths, strict=True)]
    for down, wide in enumerate(problem.legal):
        for up, choices in enumerate(problem.legal):
            if up == down or at[down] == 0:
                continue
            for wider in choices[at[up] + 1 : at[up] + 3]:
                trial = list(widths)
                trial[down], trial[up] = wide[at[down] - 1], wider
                yield tuple(trial)
