"""Concepts: how well single neurons tell classes and roles of tokens, on tokens never seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rlprune.analysis.controls import control_labels, surface
from rlprune.analysis.probes import elastic_net_path
from rlprune.analysis.recording import Recording
from rlprune.analysis.splits import Split, by_group, unseen
from rlprune.analysis.tokens import Words
from rlprune.errors import ConfigError
from rlprune.progress import track

FEWEST = 15
"""Examples that a concept needs on either side of the test; with fewer it is left out."""


@dataclass(frozen=True)
class Concept:
    """One class or role and the neuron that tells it best.

    The neuron is chosen on training programs; the areas under the ROC curve are those on test
    programs, over tokens whose text occurs in no training program. A role is told from other
    tokens of the same class, a class from all other tokens.

    Attributes:
        name: the class or role.
        site: where the neuron is.
        unit: its number.
        sign: 1 where it is high on the concept, -1 where it is low.
        auc: of the neuron.
        chosen: of the neuron, on the programs it was chosen by.
        letter: of the best single character n-gram, chosen likewise.
        letters: of a probe on all character n-grams.
        untrained: of the best neuron of the network before training; None if not asked for.
        control: of the best neuron for labels drawn at random for each text, on test programs,
            every text counting once.
        positives: test tokens of the concept.
        negatives: other test tokens.
        members: neurons with at least .8 on the programs they were chosen by, best first, at most
            20, as (site, unit, sign).
        count: how many there are.
        words: tokens on which the neuron is highest (in the sense of its sign), with its mean.
    """

    name: str
    site: str
    unit: int
    sign: int
    auc: float
    chosen: float
    letter: float
    letters: float
    untrained: float | None
    control: float
    positives: int
    negatives: int
    members: tuple[tuple[str, int, int], ...]
    count: int
    words: tuple[tuple[str, float], ...]

    @property
    def selectivity(self) -> float:
        """Its area less that of the control task."""
        return self.auc - self.control

    def identity(self) -> Any:
        """Everything that was found."""
        return asdict(self)


def auc(x: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of every column, equal values counting half, ``[neurons]``.

    Args:
        x: ``[items, neurons]``.
        positive: ``[items]`` bool, with items on both sides.
    """
    from scipy.stats import rankdata

    ranks = rankdata(np.asarray(x), axis=0)
    return _areas(ranks, positive)


def concepts(
    recording: Recording,
    words: Words,
    names: Sequence[str] | None = None,
    *,
    untrained: Recording | None = None,
    pool: str = "mean",
    seed: int = 0,
    most: tuple[int, int, int] = (4000, 2000, 4000),
) -> list[Concept]:
    """For every class and role the neuron that tells it best, beside controls.

    Args:
        recording: of the corpus that the words come from.
        words: its tokens.
        names: classes and roles; None takes all that occur often enough.
        untrained: a recording of the network before training, for the control.
        pool: what stands for a token: the "mean" over its sub-words, or the "last" of them.
        seed: of the split and the control labels.
        most: tokens used for training, choosing and testing.

    Raises:
        ConfigError: ``pool`` is something else.
        DataError: The tokens come from fewer than three programs.
    """
    if pool not in ("mean", "last"):
        raise ConfigError(f"pool is {pool!r}; it is 'mean' or 'last'")
    split = by_group(words.source, seed, most)
    chosen_by = np.concatenate([split.train, split.held])
    fresh = unseen(words.text, split)
    questions = {}
    for name in names or sorted({*words.kind, *words.role} - {""}):
        positive, among = _question(words, name)
        counts = [positive[part][among[part]] for part in (chosen_by, fresh)]
        if all(FEWEST <= part.sum() <= len(part) - FEWEST for part in counts):
            questions[name] = (positive, among)
    best = {name: _Best() for name in questions}
    control = {name: _Best() for name in questions}
    blank = {name: _Best() for name in questions}
    lots = {
        name: control_labels(words.text, positive, seed)
        for name, (positive, _) in questions.items()
    }
    for site in track(recording.sites, "concepts"):
        x = _held(recording[site], words[chosen_by], pool)
        _look(best, site, x, {n: (p[chosen_by], a[chosen_by]) for n, (p, a) in questions.items()})
        drawn = {n: (lots[n][chosen_by], a[chosen_by]) for n, (_, a) in questions.items()}
        _look(control, site, x, drawn)
    for site in untrained.sites if untrained is not None else ():
        assert untrained is not None
        x = _held(untrained[site], words[chosen_by], pool)
        _look(blank, site, x, {n: (p[chosen_by], a[chosen_by]) for n, (p, a) in questions.items()})
    letters = surface(words.text)
    found = []
    for name, (positive, among) in questions.items():
        test = fresh[among[fresh]]
        own = best[name]
        values = own.values(recording, words[test], pool)
        other = split.test[among[split.test]]
        lot = _by_text(
            control[name].values(recording, words[other], pool), lots[name][other],
            words.text[other],
        )  # fmt: skip
        before = None
        if untrained is not None:
            before = _score(blank[name].values(untrained, words[test], pool), positive[test])
        letter, whole = _surface(letters, positive, among, split, test)
        found.append(
            Concept(
                name, own.site, own.unit, own.sign, _score(values, positive[test]), own.area,
                letter, whole, before, lot, int(positive[test].sum()), int((~positive[test]).sum()),
                tuple(m[1:] for m in sorted(own.members, reverse=True)[:20]), len(own.members),
                _top_words(words.text[test], values),
            )
        )  # fmt: skip
    return found


class _Best:
    """The neuron that tells a concept best so far."""

    def __init__(self) -> None:
        self.site, self.unit, self.sign, self.area = "", 0, 1, 0.0
        self.members: list[tuple[float, str, int, int]] = []

    def look(self, site: str, areas: np.ndarray) -> None:
        either = np.maximum(areas, 1 - areas)
        unit = int(either.argmax())
        if either[unit] > self.area:
            self.site, self.unit, self.area = site, unit, float(either[unit])
            self.sign = 1 if areas[unit] >= 0.5 else -1
        for member in np.flatnonzero(either >= 0.8):
            sign = 1 if areas[member] >= 0.5 else -1
            self.members.append((float(either[member]), site, int(member), sign))

    def values(self, recording: Recording, words: Words, pool: str) -> np.ndarray:
        return self.sign * _held(recording[self.site], words, pool)[:, self.unit]


def _look(
    best: dict[str, _Best],
    site: str,
    x: np.ndarray,
    questions: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    from scipy.stats import rankdata

    ranked: dict[bytes, np.ndarray] = {}
    for name, (positive, among) in questions.items():
        if not 0 < positive[among].sum() < among.sum():
            continue
        key = among.tobytes()
        if key not in ranked:
            ranked[key] = rankdata(x[among], axis=0)
        best[name].look(site, _areas(ranked[key], positive[among]))


def _question(words: Words, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens are of a concept, and among which it is to be told."""
    if name in set(words.role):
        positive = words.role == name
        kinds = set(words.kind[positive])
        return positive, np.isin(words.kind.astype(str), sorted(map(str, kinds)))
    return words.kind == name, np.ones(len(words), dtype=bool)


def _areas(ranks: np.ndarray, positive: np.ndarray) -> np.ndarray:
    count = int(positive.sum())
    sums = positive.astype(np.float64) @ ranks
    return np.asarray(
        (sums - count * (count + 1) / 2) / (count * (len(positive) - count)), dtype=np.float64
    )


def _score(values: np.ndarray, positive: np.ndarray) -> float:
    if not 0 < positive.sum() < len(positive):
        return float("nan")
    return float(auc(values[:, None], positive)[0])


def _held(recording: Recording, words: Words, pool: str) -> np.ndarray:
    if pool == "mean":
        return recording.means(words.first, words.rows)
    return recording.take(words.rows)


def _by_text(values: np.ndarray, positive: np.ndarray, texts: np.ndarray) -> float:
    """Area with one value for each text; the label is the same wherever the text stands."""
    _, at, codes = np.unique(texts.astype(str), return_index=True, return_inverse=True)
    return _score(np.bincount(codes, values) / np.bincount(codes), positive[at])


def _surface(
    letters: np.ndarray, positive: np.ndarray, among: np.ndarray, split: Split, test: np.ndarray
) -> tuple[float, float]:
    part = np.concatenate([split.train, split.held])
    part = part[among[part]]
    areas = auc(letters[part], positive[part])
    either = np.maximum(areas, 1 - areas)
    slot = int(either.argmax())
    sign = 1 if areas[slot] >= 0.5 else -1
    fitted = elastic_net_path(letters[part], positive[part], (0.001,))[0]
    logits = fitted.logits(letters[test]).numpy()
    return (
        _score(sign * letters[test][:, slot], positive[test]),
        _score(logits[:, 1] - logits[:, 0], positive[test]),
    )


def _top_words(texts: np.ndarray, values: np.ndarray) -> tuple[tuple[str, float], ...]:
    names, codes = np.unique(texts.astype(str), return_inverse=True)
    means = np.bincount(codes, values) / np.bincount(codes)
    return tuple((str(names[i])[:40], float(means[i])) for i in np.argsort(-means)[:12])
