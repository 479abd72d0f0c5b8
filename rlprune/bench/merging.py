"""``rlprune bench merging``: accuracy without fine-tuning against the share of units removed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from rlprune.bench.tables import COLORS, figure, save
from rlprune.bench.workbench import Workbench, open_workbench
from rlprune.compaction import build
from rlprune.compensation import compensate
from rlprune.errors import ConfigError
from rlprune.files import plain, read_json, write_json, write_text
from rlprune.identity import digest
from rlprune.importance import scores
from rlprune.plan import Plan
from rlprune.progress import track
from rlprune.report import markdown
from rlprune.training import evaluate

log = logging.getLogger(__name__)


def run(config: Mapping[str, Any]) -> list[Path]:
    """Remove the same share of every layer's units, in every way and at every ratio.

    Args:
        config: The composed configuration; ``bench`` as in ``configs/bench/merging.yaml``.

    Returns:
        ``merging.md``, ``merging.png`` and ``merging.json``.

    Raises:
        ConfigError: A ratio is outside [0, 1), or the split is unknown.
    """
    options = config["bench"]
    ratios = [float(ratio) for ratio in options["ratios"]]
    if not ratios or not all(0 <= ratio < 1 for ratio in ratios):
        raise ConfigError(f"bench.ratios={ratios}: give shares in [0, 1)")
    if options["split"] not in ("test", "holdout"):
        raise ConfigError(f"bench.split={options['split']!r}: choose of test, holdout")
    bench = open_workbench(config)
    curve = _Curve(bench)
    cells = [(way, ratio) for way in options["ways"] for ratio in ratios]
    found: dict[str, dict[float, float]] = {way: {} for way in options["ways"]}
    for way, ratio in track(cells, "plans"):
        found[way][ratio] = curve.value(way, ratio)
    result = {
        "network": bench.name,
        "dense": curve.value(None, 0.0),
        "ratios": ratios,
        "lines": {way: [line[ratio] for ratio in ratios] for way, line in found.items()},
        "units": {str(ratio): sum(curve.plan(ratio).widths.values()) for ratio in ratios},
    }
    write_json(bench.folder / "merging.json", plain(result))
    write_text(bench.folder / "merging.md", _markdown(bench, result))
    return [bench.folder / "merging.md", _drawn(bench, result), bench.folder / "merging.json"]


class _Curve:
    """The cells of the picture, each computed once and kept as a file."""

    def __init__(self, bench: Workbench) -> None:
        self._bench, self._options = bench, bench.options
        self._samples = bench.data.calibration(int(self._options["images"]))
        self._scores: Any = None

    def plan(self, ratio: float) -> Plan:
        """The same share of every group, in the order of importance."""
        groups = self._bench.job.groups
        if self._scores is None:
            self._scores = scores(
                groups, self._options["importance"], data=self._samples, task=self._bench.data.task
            )
        return Plan.uniform(groups, 1 - ratio, self._scores)

    def value(self, way: str | None, ratio: float) -> float:
        """The metric of one cell; None is the dense network."""
        bench, options = self._bench, self._options
        asked = {
            "way": None if way is None else plain(options["ways"][way]),
            "ratio": ratio,
            "network": bench.job.dense,
            "data": bench.data,
            **{key: options[key] for key in ("importance", "images", "split")},
        }
        path = bench.folder / "cells" / f"{digest(asked)[:16]}.json"
        if path.exists():
            return float(read_json(path)["value"])
        network = bench.job.dense if way is None else self._network(way, ratio)
        task, device = bench.data.task, bench.job.device
        batches = (
            bench.data.test_batches(device=device)
            if options["split"] == "test"
            else bench.data.holdout_batches(device=device)
        )
        value = evaluate(network, batches, task=task, device=device)[task.metric.name]
        write_json(path, {"way": way, "ratio": ratio, "value": value})
        log.info("%s, %.2f removed: %s", way or "dense", ratio, task.metric.show(value))
        return value

    def _network(self, way: str, ratio: float) -> nn.Module:
        groups, plan = self._bench.job.groups, self.plan(ratio)
        small = build(groups, plan).eval()
        method = self._options["ways"][way]
        return small if method is None else compensate(groups, plan, small, method, self._samples)


def _drawn(bench: Workbench, result: Mapping[str, Any]) -> Path:
    metric = bench.data.task.metric
    made = figure(6.4, 4.0)
    axes = made.add_subplot()
    removed = [100 * ratio for ratio in result["ratios"]]
    for color, (way, values) in zip(COLORS, result["lines"].items(), strict=False):
        shown = [metric.scale * value for value in values]
        axes.plot(removed, shown, marker="o", markersize=4, color=color, label=way)
    axes.axhline(metric.scale * result["dense"], color="#7a7f87", linewidth=1, label="dense")
    axes.set_xlabel("units removed of every layer, %")
    axes.set_ylabel(metric.axis)
    axes.set_title(f"{result['network']}, no fine-tuning", fontsize=10)
    axes.legend(fontsize=8, frameon=False)
    return save(made, bench.folder / "merging.png")


def _markdown(bench: Workbench, result: Mapping[str, Any]) -> str:
    metric, options = bench.data.task.metric, bench.options
    head = ("removed", *(f"{100 * ratio:g} %" for ratio in result["ratios"]))
    rows = [
        (way, *(metric.show(value) for value in values)) for way, values in result["lines"].items()
    ]
    return (
        f"## {result['network']}\n\n{metric.label} on the {options['split']} split without "
        f"fine-tuning, dense {metric.show(result['dense'])}; units in the order of "
        f"`{options['importance']}`, {options['images']} calibration samples.\n\n"
        f"{markdown.table(head, rows)}\n"
    )
