"""How many neurons a task needs: oracle, layer, correlation clusters, minimal set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from rlprune.analysis.clusters import CUTS, Dendrogram
from rlprune.analysis.controls import control_labels, majority, surface
from rlprune.analysis.probes import PENALTIES, Probe, train_probe
from rlprune.analysis.ranking import MASSES, descending, minimal_set
from rlprune.analysis.splits import Split, by_group, standard_error
from rlprune.errors import DataError
from rlprune.progress import track

DELTAS = (0.03, 0.02, 0.01)
"""What may be lost against the oracle, as a share of its score."""
SHARES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 1.0)
"""Shares of the neurons that ablation curves keep."""


@dataclass(frozen=True)
class Labelling:
    """Labelled items and what each layer holds of them.

    Attributes:
        name: for people.
        layers: by site ``[items, neurons]``, first to last.
        labels: ``[items]``.
        texts: what the surface control sees, ``[items]``.
        groups: items of one group never lie on both sides of a split, ``[items]``.
        untrained: like ``layers``, of the same network before training; None leaves the control
            out.
    """

    name: str
    layers: dict[str, np.ndarray]
    labels: np.ndarray
    texts: np.ndarray
    groups: np.ndarray
    untrained: dict[str, np.ndarray] | None = None

    def __post_init__(self) -> None:
        sizes = {len(x) for x in (*self.layers.values(), self.labels, self.texts, self.groups)}
        if len(sizes) != 1 or not self.layers:
            raise DataError(f"task {self.name!r}: layers and labels have lengths {sorted(sizes)}")


@dataclass(frozen=True)
class Stage:
    """One step of the reduction, chosen by held-out items.

    Attributes:
        delta: what could be lost against the oracle.
        step: "layer", "clusters" or "minimal".
        neurons: how many are left.
        share: of all neurons.
        held: score on held-out items.
        test: on test items.
        random: on test items, of as many neurons drawn at random from all layers.
        choice: the layer, the cut or the weight mass that was chosen.
    """

    delta: float
    step: str
    neurons: int
    share: float
    held: float
    test: float
    random: float
    choice: str


@dataclass
class Redundancy:
    """What :func:`redundancy` found; scores are shares of items told right.

    Attributes:
        task: its name.
        items: number of training, held-out and test items.
        neurons: of all layers together.
        oracle: test score of a probe on all neurons.
        majority: of the most frequent label.
        surface: of a probe on character n-grams.
        untrained: of a probe on all neurons of the network before training; None if not asked for.
        control: of a probe on all neurons on labels drawn at random for each text.
        error: standard error of oracle minus majority, items of one program being alike.
        by_layer: held-out score by site.
        stages: the reductions.
        clusters: number of clusters of the first delta's layer by cut.
        ablation: shares of neurons kept in the oracle, the test score with the heaviest and with
            the lightest of them.
        kept: by delta the neurons of the minimal set, as (site, unit).
        sets: for every class the neurons of the smallest of these sets that hold half of the weight
            mass of its row in the probe, the heaviest first, as (site, unit, weight); weights are
            of standardised neurons, negative ones tell against the class.
    """

    task: str
    items: tuple[int, int, int]
    neurons: int
    oracle: float
    majority: float
    surface: float
    untrained: float | None
    control: float
    error: float
    by_layer: dict[str, float]
    stages: list[Stage] = field(default_factory=list)
    clusters: dict[float, int] = field(default_factory=dict)
    ablation: list[tuple[float, float, float]] = field(default_factory=list)
    kept: dict[float, list[tuple[str, int]]] = field(default_factory=dict)
    sets: dict[str, list[tuple[str, int, float]]] = field(default_factory=dict)

    @property
    def selectivity(self) -> float:
        """Oracle minus control task."""
        return self.oracle - self.control

    @property
    def conclusive(self) -> bool:
        """Whether the oracle is at least two standard errors above the majority."""
        return self.oracle - self.majority >= 2 * self.error

    def identity(self) -> Any:
        """Everything that was found."""
        return asdict(self)


def redundancy(
    task: Labelling,
    *,
    deltas: Sequence[float] = DELTAS,
    cuts: Sequence[float] = CUTS,
    masses: Sequence[float] = MASSES,
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
    most: tuple[int, int, int] = (4000, 2000, 3000),
) -> Redundancy:
    """Reduce the neurons that a task needs, step by step (Dalvi et al., EMNLP 2020).

    For every delta: the first layer whose held-out score is above oracle x (1 - delta); of its
    correlation clusters the medoids, at the largest cut that still is above; of those the smallest
    minimal set by weight mass that still is. Everything is chosen on held-out programs; the test
    programs are read once, for the figures.

    Args:
        task: labelled items.
        deltas: what may be lost.
        cuts: of the clusters.
        masses: shares of the weight mass.
        penalties: of the probes.
        seed: of splits and random sets.
        most: items used for training, choosing and testing.

    Raises:
        DataError: Fewer than three groups, or one class.
    """
    split = by_group(task.groups, seed, most)
    labels = task.labels
    work = _Work(labels, split, tuple(penalties))
    every = np.concatenate(list(task.layers.values()), 1)
    oracle = work.fit(every)
    by_layer = {site: work.fit(x) for site, x in track(task.layers.items(), f"{task.name}: layers")}
    common = labels[split.test] == majority(labels, split.train)
    right = work.right(oracle, every)
    control = _Work(control_labels(task.texts, labels, seed), split, tuple(penalties))
    letters = surface(task.texts)
    blank = None
    if task.untrained is not None:
        before = np.concatenate(list(task.untrained.values()), 1)
        blank = float(work.right(work.fit(before), before).mean())
    found = Redundancy(
        task=task.name,
        items=(len(split.train), len(split.held), len(split.test)),
        neurons=every.shape[1],
        oracle=float(right.mean()),
        majority=float(common.mean()),
        surface=float(work.right(work.fit(letters), letters).mean()),
        untrained=blank,
        control=float(control.right(control.fit(every), every).mean()),
        error=standard_error(right * 1.0 - common, task.groups[split.test]),
        by_layer={site: work.held(p, task.layers[site]) for site, p in by_layer.items()},
    )
    generator = np.random.default_rng(seed)
    drawn: dict[int, float] = {}
    trees: dict[str, Dendrogram] = {}
    for delta in deltas:
        goal = work.held(oracle, every) * (1 - delta)
        site = next((s for s, score in found.by_layer.items() if score >= goal), "")
        site = site or max(found.by_layer, key=lambda s: found.by_layer[s])
        x = task.layers[site]
        if site not in trees:
            trees[site] = Dendrogram.of(x[split.train])
        chosen, current, cut = np.arange(x.shape[1]), by_layer[site], "none"
        steps = [("layer", chosen, current, site)]
        for wanted in sorted(cuts, reverse=True):
            medoids = np.sort(trees[site].medoids(trees[site].labels(wanted)))
            fitted = work.fit(x[:, medoids])
            if work.held(fitted, x[:, medoids]) >= goal:
                chosen, current, cut = medoids, fitted, f"{wanted:g}"
                break
        steps.append(("clusters", chosen, current, cut))
        mass_chosen, pool = "none", chosen
        for mass in sorted(masses):
            subset = pool[minimal_set(steps[-1][2].weight, mass)]
            fitted = work.fit(x[:, subset])
            if work.held(fitted, x[:, subset]) >= goal:
                chosen, current, mass_chosen = subset, fitted, f"{mass:g}"
                break
        steps.append(("minimal", chosen, current, mass_chosen))
        for step, kept, fitted, choice in steps:
            size = len(kept)
            if size not in drawn:
                some = np.sort(generator.choice(every.shape[1], size, replace=False))
                drawn[size] = float(work.right(work.fit(every[:, some]), every[:, some]).mean())
            found.stages.append(
                Stage(
                    delta, step, size, size / every.shape[1], work.held(fitted, x[:, kept]),
                    float(work.right(fitted, x[:, kept]).mean()), drawn[size], choice,
                )
            )  # fmt: skip
        found.kept[delta] = [(site, int(unit)) for unit in chosen]
        if not found.sets or len(chosen) < min(len(k) for k in found.kept.values()):
            found.sets = class_sets(current, site, chosen)
        if not found.clusters:
            found.clusters = {c: int(trees[site].labels(c).max()) for c in cuts}
    found.ablation = _ablation(oracle, every[split.test], labels[split.test])
    return found


def class_sets(
    fitted: Probe, site: str, units: np.ndarray, mass: float = 0.5
) -> dict[str, list[tuple[str, int, float]]]:
    """The neurons that hold a share of every class's weight mass in a probe.

    Args:
        fitted: the probe.
        site: of its neurons.
        units: their numbers at the site, ``[neurons]``.
        mass: the share.

    Returns:
        By class ``(site, unit, weight)``, the heaviest first.
    """
    weights = fitted.weight.numpy()
    found = {}
    for name, row in zip(fitted.classes.tolist(), weights, strict=True):
        own = minimal_set(row[None], mass)
        ranked = own[descending(np.abs(row[own]))]
        found[str(name)] = [(site, int(units[at]), float(row[at])) for at in ranked]
    return found


@dataclass(frozen=True)
class _Work:
    """Probes on one split."""

    labels: np.ndarray
    split: Split
    penalties: tuple[float, ...]

    def fit(self, x: np.ndarray) -> Probe:
        train, held = self.split.train, self.split.held
        return train_probe(
            (x[train], self.labels[train]), (x[held], self.labels[held]), self.penalties
        )

    def held(self, fitted: Probe, x: np.ndarray) -> float:
        return fitted.accuracy(x[self.split.held], self.labels[self.split.held])

    def right(self, fitted: Probe, x: np.ndarray) -> np.ndarray:
        return fitted.correct(x[self.split.test], self.labels[self.split.test])


def _ablation(fitted: Probe, x: np.ndarray, labels: np.ndarray) -> list[tuple[float, float, float]]:
    order = descending(fitted.weight.abs().sum(0).numpy())
    curve = []
    for share in SHARES:
        count = round(share * len(order))
        scores = [fitted.accuracy(x, labels, o[:count].copy()) for o in (order, order[::-1])]
        curve.append((share, *scores))
    return [(a, b, c) for a, b, c in curve]
