"""How a size is shared out over layers: evenly, by one ranking, by forecasts, by an agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rlprune.batches import Batch, as_batches
from rlprune.errors import ConfigError
from rlprune.observe import Observation, Site, stream
from rlprune.plan import Plan, nearest_legal
from rlprune.problem import EvaluatorConfig, create
from rlprune.search import search
from rlprune.sensitivity import sensitivity
from rlprune.space import allocate, layer_of
from rlprune.structure import Group, Groups

if TYPE_CHECKING:
    from rlprune.bench.workbench import Workbench

Widths = dict[str, int]


@dataclass(frozen=True)
class Cell:
    """A size: what share of the units is kept, by their kind.

    Attributes:
        shares: kind -> share in (0, 1]; kinds that are not named stay whole. ``layers``, where it
            is named, is the share of layers for recipes that drop whole ones.
    """

    shares: Mapping[str, float]

    def sizes(self, dense: Groups, groups: Groups, part: float = 1.0) -> dict[str, int]:
        """Units that are kept of every kind.

        Args:
            dense: the groups of the whole network.
            groups: those of the network that is cut; kinds without a share keep what they have.
            part: how much of the way has been gone.
        """
        found = {}
        for kind in dict.fromkeys(group.kind for group in groups.prunable):
            whole = sum(group.width for group in dense.prunable if group.kind == kind)
            share = 1.0 - (1.0 - self.shares.get(kind, 1.0)) * part
            there = sum(group.width for group in groups.prunable if group.kind == kind)
            found[kind] = min(round(share * whole), there)
        return found


def even(groups: Groups, sizes: Mapping[str, int]) -> Widths:
    """The same share in every layer."""
    found = {}
    for kind, size in sizes.items():
        members = _members(groups, kind)
        share = size / sum(group.width for group in members)
        found.update({g.name: nearest_legal(g, share * g.width) for g in members})
    return found


def uneven(
    groups: Groups, sizes: Mapping[str, int], scores: Mapping[str, Tensor], standardise: bool
) -> Widths:
    """Those units that score best over all layers; every layer keeps its fewest."""
    found = {}
    for kind, size in sizes.items():
        members = _members(groups, kind)
        ordered = []
        for group in members:
            score = scores[group.name].double()
            if standardise and group.width > 1:
                score = (score - score.mean()) / score.std().clamp_min(1e-30)
            best = score.sort(descending=True).values
            best[: group.min_width] = torch.inf
            ordered.append(best)
        owner = torch.repeat_interleave(torch.tensor([len(score) for score in ordered]))
        best = torch.cat(ordered).argsort(descending=True, stable=True)[:size]
        kept = torch.bincount(owner[best], minlength=len(members)).tolist()
        found.update({g.name: n for g, n in zip(members, kept, strict=True)})
    return found


def predicted(
    groups: Groups,
    sizes: Mapping[str, int],
    scores: Mapping[str, Tensor],
    bench: Workbench,
    samples: Any,
    seed: int,
) -> Widths:
    """What the sensitivity curves say hurts least, with as many units of every kind."""
    task = bench.data.task
    batches = as_batches(samples)
    curves = sensitivity(groups, scores, batches, reconstruct=True, seed=seed, classes=task.classes)
    found = {}
    for kind, size in sizes.items():
        members = _members(groups, kind)

        def share(rows: np.ndarray, size: int = size) -> np.ndarray:
            return np.asarray(rows.sum(1, keepdims=True) / size)

        chosen = allocate(
            [np.asarray(curves[g.name], dtype=np.float64) for g in members],
            [g.legal_widths() for g in members],
            share,
        )
        found.update({g.name: width for g, width in zip(members, chosen, strict=True)})
    return found


def searched(
    groups: Groups,
    sizes: Mapping[str, int],
    scores: Mapping[str, Tensor],
    bench: Workbench,
    seed: int,
) -> Plan:
    """What an agent finds at the parameters and MACs of the even plan."""
    widths = even(groups, sizes)
    order = [widths.get(group.name, group.width) for group in groups.prunable]
    job = bench.job
    config = job.spec.evaluator
    problem = create(
        groups,
        {"params": groups.params(order) + 1, "macs": groups.macs(order) + 1},
        data=bench.data,
        importance=dict(scores),
        config=EvaluatorConfig(**{**vars(config), "compensation": ("least_squares",)}),
        seed=seed,
    )
    try:
        result = search(
            problem,
            agent=bench.options["agent"],
            evaluations=int(bench.options["evaluations"]),
            seed=seed,
        )
    finally:
        problem.close()
    return result.finalists[0].evaluation.plan


def layers(groups: Groups, cell: Cell, batches: Sequence[Batch]) -> Plan:
    """Without the layers that change their input least (ShortGPT, Men et al. 2024).

    Raises:
        ConfigError: the size names no share of layers.
    """
    if "layers" not in cell.shares:
        raise ConfigError(f"cell {dict(cell.shares)}: name the share of layers")
    inside: dict[str, list[str]] = {}
    for branch in groups.branches:
        inside.setdefault(layer_of(groups.model, branch), []).append(branch)
    influence = _influence(groups, list(inside), batches)
    gone = round((1.0 - cell.shares["layers"]) * len(inside))
    least = sorted(inside, key=lambda layer: influence[layer])[:gone]
    return Plan.dense_plan(groups).drop(groups, [b for layer in least for b in inside[layer]])


def _influence(groups: Groups, paths: Sequence[str], batches: Sequence[Batch]) -> dict[str, float]:
    """One less the mean cosine between a layer's input and output."""
    given: dict[str, Tensor] = {}
    sums = dict.fromkeys(paths, 0.0)

    def entered(seen: Observation, path: str) -> None:
        given[path] = seen.value

    def left(seen: Observation, path: str) -> None:
        cosine = torch.nn.functional.cosine_similarity(given.pop(path), seen.value, dim=-1)
        sums[path] += float((1.0 - cosine).double().mean())

    sinks: dict[Any, Any] = {}
    for path in paths:
        sinks[Site(path, "input")] = lambda seen, path=path: entered(seen, path)
        sinks[Site(path)] = lambda seen, path=path: left(seen, path)
    stream(groups.model, batches, sinks)
    return sums


def _members(groups: Groups, kind: str) -> list[Group]:
    return [group for group in groups.prunable if group.kind == kind]
