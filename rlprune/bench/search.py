"""``rlprune bench search``: agents at equal unique evaluations, cell by cell."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlprune.bench import peers, report
from rlprune.bench.cells import Cell, planned, run_cell
from rlprune.bench.tables import spearman
from rlprune.bench.tuning import dense_measured, finetune_seeds, shown, tuned
from rlprune.bench.workbench import Workbench, open_workbench
from rlprune.errors import ConfigError
from rlprune.files import write_json
from rlprune.plan import Plan
from rlprune.problem import Problem

log = logging.getLogger(__name__)

STORE = "evaluations.jsonl"
_FEWEST = 20


def run(config: Mapping[str, Any]) -> list[Path]:
    """Run the missing cells of one problem, then write the report.

    Args:
        config: The composed configuration; ``bench`` as in ``configs/bench/search.yaml``.

    Returns:
        Table, picture and summary, of every problem below ``bench.out``.

    Raises:
        RlpruneError: A bench is wrong, or the folder holds evaluations of another problem.
    """
    options = config["bench"]
    cells = planned(options)
    wanted = peers.planned(options)
    bench = open_workbench(config)
    finetune_seeds(options)
    if options["finetune"] and bench.recipe.epochs == 0:
        raise ConfigError("bench.finetune needs a recipe with epochs: finetune=default or =short")
    known = [cell.finished(bench) for cell in cells]
    todo = [
        cell
        for cell, content in zip(cells, known, strict=True)
        if content is None or cell.label in options["redo"]
    ]
    log.info("%s: %d cells, %d to run", bench.name, len(cells), len(todo))
    problem = bench.evaluator(STORE)
    try:
        _search(bench, problem, todo)
        _predict(bench, problem)
    finally:
        problem.close()
    for peer in wanted:
        peers.run_peer(peer, bench)
    if options["finetune"]:
        _tune(bench, cells)
    return report.write(bench.folder.parent)


def _search(bench: Workbench, problem: Problem, todo: list[Cell]) -> None:
    for number, cell in enumerate(todo, start=1):
        content = run_cell(cell, bench, problem)
        seconds = content["seconds"]
        log.info(
            "%d/%d %s, %d evaluations, seed %d: quality %.4f, %.1f s (%.1f s alone)",
            number, len(todo), cell.label, content["unique"], cell.seed, content["quality"],
            seconds["clock"], seconds["total"],
        )  # fmt: skip


def _predict(bench: Workbench, problem: Problem) -> None:
    """Hold the predicted damage of every plan that was evaluated against its quality."""
    if problem.sensitivity is None or len(problem.qualities) < _FEWEST:
        return
    curves = problem.sensitivity
    predicted = [
        -sum(float(c[width]) for c, width in zip(curves, plan.widths.values(), strict=True))
        for plan in problem.qualities
    ]
    found = {"plans": len(predicted), "rho": spearman(predicted, list(problem.qualities.values()))}
    write_json(bench.folder / report.PREDICTION, found)
    log.info("predicted damage and quality of %(plans)d plans: Spearman %(rho).3f", found)


def _tune(bench: Workbench, cells: list[Cell]) -> None:
    """Fine-tune what the chosen cells found; equal plans once."""
    counts = {int(count) for count in bench.options["finetune"]}
    chosen = [c for c in cells if c.evaluations in counts or c.agent["name"] == "uniform"]
    metric = bench.data.task.metric
    log.info("%s: dense %s", bench.name, shown(dense_measured(bench), metric))
    for number, cell in enumerate(chosen, start=1):
        content = cell.finished(bench)
        assert content is not None
        path = bench.folder / "plans" / f"{content['plan']}.json"
        network = bench.job.compacted(Plan.from_json(path.read_text(encoding="utf-8")))
        content["tuned"] = tuned(bench, network)
        write_json(bench.folder / "cells" / cell.file, content)
        log.info(
            "%d/%d %s, %d evaluations, seed %d: %s -> %s",
            number, len(chosen), cell.label, cell.evaluations, cell.seed,
            shown(content["tuned"]["before"], metric), shown(content["tuned"]["after"], metric),
        )  # fmt: skip
