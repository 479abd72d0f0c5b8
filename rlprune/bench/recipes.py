"""``rlprune bench recipes``: whole pruning recipes at equal sizes, without training.

Every result is a small JSON file; what is there is not computed again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from rlprune import importance as importance_module
from rlprune.batches import as_batches
from rlprune.bench.sharing import Cell, even, layers, predicted, searched, uneven
from rlprune.bench.workbench import Workbench, environment, open_workbench
from rlprune.compaction import build, discover
from rlprune.compensation import compensate
from rlprune.errors import ConfigError
from rlprune.files import plain, read_json, write_json, write_text
from rlprune.identity import describe, digest
from rlprune.inputs import batch_size, map_tensors
from rlprune.options import build as options_of
from rlprune.plan import Plan
from rlprune.report import markdown
from rlprune.run import composed
from rlprune.structure import Groups
from rlprune.training import evaluate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """One way to prune.

    Attributes:
        importance: criterion, by name or dotted path.
        allocation: ``even``, ``uneven`` (one ranking over all layers), ``predicted`` (by
            sensitivity curves), ``searched`` (by the agent), or ``layers``.
        rounds: steps down to the size, with scores of the network of the step before.
        compensation: methods at the end.
        standardise: whether scores are made comparable over layers before they are ranked.
    """

    importance: str = "l2"
    allocation: str = "even"
    rounds: int = 1
    compensation: tuple[str, ...] = ()
    standardise: bool = False

    def __post_init__(self) -> None:
        """Check the allocation."""
        if self.allocation not in ("even", "uneven", "predicted", "searched", "layers"):
            raise ConfigError(f"recipe: allocation {self.allocation!r} is unknown")


def run(config: Mapping[str, Any]) -> list[Path]:
    """Prune with every recipe at every size and seed, and measure on the test split.

    Args:
        config: The composed configuration; ``bench`` as in ``configs/bench/recipes.yaml``.

    Returns:
        ``recipes.md`` and ``recipes.json``.

    Raises:
        RlpruneError: A bench is wrong.
    """
    bench = open_workbench(config)
    options = bench.options
    recipes = {
        name: options_of(Recipe, told, f"recipe {name}")
        for name, told in options["recipes"].items()
        if told is not None
    }
    cells = {name: Cell(dict(told)) for name, told in options["cells"].items() if told is not None}
    study = Study(bench)
    found = {
        (recipe, cell): [study.result(recipes[recipe], cells[cell], seed) for seed in _seeds(bench)]
        for cell in cells
        for recipe in recipes
    }
    return _report(study, list(recipes), list(cells), found)


class Study:
    """Results of recipes on one network.

    Args:
        bench: The problem.
    """

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.groups: Groups = bench.job.groups
        self._network = digest(describe(bench.job.dense))
        self._data = digest(describe(bench.data))
        self._scores: dict[tuple[str, int], dict[str, Tensor]] = {}

    def result(self, recipe: Recipe, cell: Cell, seed: int) -> dict[str, Any]:
        """What a recipe leaves of the network at a size, computed unless it is there."""
        asked = {
            "network": self._network,
            "recipe": vars(recipe),
            "cell": cell.shares,
            "seed": seed,
            "samples": self.bench.options["samples"],
            "data": self._data,
        }
        if recipe.allocation == "searched":
            asked["agent"] = [self.bench.options["agent"], self.bench.options["evaluations"]]
        path = self.bench.folder / "results" / f"{digest(asked)[:16]}.json"
        known = read_json(path)
        if known is None:
            log.info("%s, %s, seed %d", recipe, cell, seed)
            known = self._prune(recipe, cell, seed)
            write_json(path, plain({**known, "asked": asked}))
        return dict(known)

    def dense(self) -> float:
        """The metric of the whole network."""
        name = f"dense-{digest([self._network, self._data])[:16]}.json"
        path = self.bench.folder / "results" / name
        known = read_json(path)
        if known is None:
            known = {"value": self._metric(self.bench.job.dense)}
            write_json(path, known)
        return float(known["value"])

    def _prune(self, recipe: Recipe, cell: Cell, seed: int) -> dict[str, Any]:
        started = perf_counter()
        samples = self._samples(seed)
        plan = self._plan(recipe, cell, seed, samples)
        small = build(self.groups, plan)
        compensate(self.groups, plan, small, list(recipe.compensation), as_batches(samples))
        seconds = perf_counter() - started
        widths = [plan.widths[g.name] for g in self.groups.prunable]
        return {
            "value": self._metric(small.eval()),
            "seconds": seconds,
            "params": self.groups.params(widths),
            "macs": self.groups.macs(widths),
            "widths": plan.widths,
        }

    def _plan(self, recipe: Recipe, cell: Cell, seed: int, samples: Any) -> Plan:
        if recipe.allocation == "layers":
            return layers(self.groups, cell, as_batches(samples))
        network: nn.Module = self.bench.job.dense
        plan = Plan.dense_plan(self.groups)
        for number in range(1, recipe.rounds + 1):
            groups = self.groups
            if number > 1:
                network = build(self.groups, plan)
                groups = discover(network, self.bench.job.example_inputs)
            scores = self._order(groups, recipe.importance, samples, seed)
            sizes = cell.sizes(self.groups, groups, number / recipe.rounds)
            if recipe.allocation == "even":
                widths = even(groups, sizes)
            elif recipe.allocation == "uneven":
                widths = uneven(groups, sizes, scores, recipe.standardise)
            elif recipe.allocation == "predicted":
                widths = predicted(groups, sizes, scores, self.bench, samples, seed)
            else:
                return searched(groups, sizes, scores, self.bench, seed)
            plan = composed(plan, Plan.from_widths(groups, widths, scores))
        return plan

    def _order(self, groups: Groups, importance: str, samples: Any, seed: int) -> dict[str, Tensor]:
        """Scores of units; those of the dense network are computed once."""
        key = (importance, seed)
        if groups is self.groups and key in self._scores:
            return self._scores[key]
        scores = importance_module.scores(
            groups,
            importance_module.find(importance),
            data=as_batches(samples),
            task=self.bench.data.task,
            generator=torch.Generator().manual_seed(seed),
        )
        if groups is self.groups:
            self._scores[key] = scores
        return scores

    def _samples(self, seed: int) -> Any:
        """Calibration samples of a seed."""
        data, count = self.bench.data, int(self.bench.options["samples"])
        inputs, labels = data.calibration(data.train_size)
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(labels), generator=generator)[:count]
        size = batch_size(inputs)
        picked = map_tensors(inputs, lambda t: t[chosen] if t.dim() and len(t) == size else t)
        return picked, labels[chosen]

    def _metric(self, network: nn.Module) -> float:
        data = self.bench.data
        batches = data.test_batches() if data.has_test else data.holdout_batches()
        return float(evaluate(network, batches, task=data.task)[data.task.metric.name])


def _seeds(bench: Workbench) -> Sequence[int]:
    return [int(seed) for seed in bench.options["seeds"]]


def _report(
    study: Study,
    recipes: Sequence[str],
    cells: Sequence[str],
    found: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
) -> list[Path]:
    bench, metric = study.bench, study.bench.data.task.metric
    show = replace(metric).show
    rows = [["dense", *[show(study.dense())] * len(cells)]]
    for recipe in recipes:
        row = [recipe]
        for cell in cells:
            values = [result["value"] for result in found[recipe, cell]]
            worst = min(values, key=metric.score)
            row.append(f"{show(fmean(values))} ({show(worst)})")
        rows.append(row)
    sizes = ["MACs of `even`" if "l2" in recipes else "MACs"]
    first = next(iter(recipes))
    dense = study.groups.macs()
    for cell in cells:
        sizes.append(f"{100 * fmean(r['macs'] for r in found[first, cell]) / dense:.0f} %")
    text = "\n".join(
        [
            f"# {bench.name}: {metric.label}, mean and (worst) of {len(_seeds(bench))} seeds",
            "",
            markdown.table(["recipe", *cells], [*rows, sizes]),
            "",
        ]
    )
    write_text(bench.folder / "recipes.md", text)
    write_json(
        bench.folder / "recipes.json",
        plain(
            {
                "dense": study.dense(),
                "results": {f"{r}/{c}": list(v) for (r, c), v in found.items()},
                "environment": environment(),
            }
        ),
    )
    return [bench.folder / "recipes.md", bench.folder / "recipes.json"]
