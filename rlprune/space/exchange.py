"""Better choices by changing one or two decisions at a time, on models alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rlprune.space.space import Choice, Space

Rows = Callable[[np.ndarray], np.ndarray]
Lines = list[tuple[np.ndarray, np.ndarray]]

_STEPS = 24
_MOST = 400
_CHECKED = 24
_LEAST = 1e-4
_SCALES = 64
_VALUES = 96
_ROOM = 1e-9


def exchange(
    space: Space, choice: Choice, gain: Rows, costs: Rows, generator: np.random.Generator
) -> list[Choice]:
    """Climb from a choice by moves of one or two decisions, while every budget stays met.

    A move takes a decision one, two, four, ... values up or down, or as many plateaus, a plateau
    being values of the same cost, of which the largest counts. Gains and costs of single moves are
    computed; those of pairs are expected to add up, the most promising pairs are computed, and the
    best of all is made. A pair is what keeps a plan on its budgets: one decision pays for another.

    Args:
        space: the decisions.
        choice: where to start; where it breaks a budget, it is scaled down first.
        gain: choices ``[P, n]`` -> ``[P]``, what shall become large; free to call.
        costs: choices ``[P, n]`` -> ``[P, m]`` expected ``cost / limit``; free to call.
        generator: picks among the moves where there are many.

    Returns:
        The choice at which no move gains anything, then its neighbours that meet the budgets, best
        first; empty where nothing meets them.
    """
    found = _inside(space, choice, costs)
    if found is None:
        return []
    current, values = found, _lines(space, found, costs)
    around: list[Choice] = []
    value = float(gain(current[None])[0])
    for _ in range(_STEPS):
        rows, gains = _neighbours(current, value, values, gain, costs, generator)
        around = [tuple(row) for row in rows.tolist()]
        if not len(rows) or gains[0] <= value + _LEAST:
            break
        current, value = rows[0], float(gains[0])
    return [tuple(current.tolist()), *around]


def _inside(space: Space, choice: Choice, costs: Rows) -> np.ndarray | None:
    """The choice, or the largest multiple of it that meets every budget."""
    values = np.array(choice)
    scales = np.linspace(1.0, 0.0, _SCALES)[:, None]
    scaled = np.where(space.branches, values, space.nearest_values(scales * values))
    met = (costs(scaled) <= 1.0 + _ROOM).all(axis=1)
    return scaled[int(met.argmax())] if met.any() else None


def _lines(space: Space, current: np.ndarray, costs: Rows) -> Lines:
    """For every decision its values, and those that cannot be raised for free as things are."""
    values = [
        _thinned(np.array(decision.legal), value)
        for decision, value in zip(space.decisions, current.tolist(), strict=True)
    ]
    sizes = [len(own) for own in values]
    rows = np.repeat(current[None], sum(sizes), axis=0)
    rows[np.arange(len(rows)), np.repeat(np.arange(len(sizes)), sizes)] = np.concatenate(values)
    found = []
    for own, known in zip(values, np.split(costs(rows), np.cumsum(sizes)[:-1]), strict=True):
        dearer = (known[1:] > known[:-1] * (1.0 + _ROOM)).any(axis=1)
        found.append((own, own[np.append(dearer, True)]))
    return found


def _thinned(legal: np.ndarray, value: int) -> np.ndarray:
    """Legal values, fewer the farther from the current one where there are many."""
    if len(legal) <= _VALUES:
        return legal
    steps = 2 ** np.arange(len(legal).bit_length())
    here = int(np.searchsorted(legal, value))
    even = np.linspace(0, len(legal) - 1, _VALUES // 2).astype(int)
    places = np.concatenate([[here], here + steps, here - steps, even])
    return legal[np.unique(places[(places >= 0) & (places < len(legal))])]


def _neighbours(
    current: np.ndarray,
    value: float,
    values: Lines,
    gain: Rows,
    costs: Rows,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Choices one or two moves away that meet the budgets, best first, and their gains."""
    moves = _moves(current, values, generator)
    if not len(moves):
        return np.empty((0, len(current)), dtype=int), np.empty(0)
    rows = np.repeat(current[None], len(moves), axis=0)
    rows[np.arange(len(moves)), moves[:, 0]] = moves[:, 1]
    gains, spent = gain(rows), costs(rows)
    added, more = gains - value, spent - costs(current[None])
    here = spent[:, None] + more[None]
    pairs = added[:, None] + added[None]
    wrong = (here > 1.0).any(axis=2) | (moves[:, :1] >= moves[:, 0])
    pairs[wrong] = -np.inf
    second = pairs.argmax(axis=1)
    first = np.argsort(-pairs.max(axis=1), kind="stable")[:_CHECKED]
    first = first[np.isfinite(pairs[first, second[first]])]
    second = second[first]
    both = rows[first]
    both[np.arange(len(first)), moves[second, 0]] = moves[second, 1]
    if len(both):
        rows = np.concatenate([rows, both])
        gains, spent = np.append(gains, gain(both)), np.concatenate([spent, costs(both)])
    met = np.flatnonzero((spent <= 1.0 + _ROOM).all(axis=1))
    order = met[np.argsort(-gains[met], kind="stable")][:_CHECKED]
    return rows[order], gains[order]


def _moves(current: np.ndarray, values: Lines, generator: np.random.Generator) -> np.ndarray:
    """Moves ``[M, 2]``: number of a decision, and the value it takes."""
    found = []
    for at, (value, own) in enumerate(zip(current.tolist(), values, strict=True)):
        near = {int(new) for line in own for new in _stepwise(line, value)}
        found += [(at, new) for new in sorted(near)]
    if len(found) > _MOST:
        chosen = generator.choice(len(found), _MOST, replace=False)
        found = [found[number] for number in sorted(chosen.tolist())]
    return np.array(found, dtype=int).reshape(-1, 2)


def _stepwise(line: np.ndarray, value: int) -> np.ndarray:
    """What lies one, two, four, ... places above and below a value on a line of values."""
    sides = line[line < value][::-1], line[line > value]
    return np.concatenate([s[2 ** np.arange(len(s).bit_length()) - 1] for s in sides])
