"""``rlprune bench fidelity``: which score ranks plans as fine-tuning would."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlprune.bench.plans import diverse
from rlprune.bench.scoring import Scorer
from rlprune.bench.tables import COLORS, figure, save, spearman, spearman_interval
from rlprune.bench.tuning import ShortEpochs
from rlprune.bench.workbench import Workbench, environment, open_workbench
from rlprune.errors import CheckpointError
from rlprune.files import plain, read_json, write_json, write_text
from rlprune.plan import Plan
from rlprune.problem import Problem
from rlprune.report import markdown
from rlprune.tasks import Metric
from rlprune.training import finetune

log = logging.getLogger(__name__)

_KEYS = ("kind", "compensation", "statistics", "images")


def run(config: Mapping[str, Any]) -> list[Path]:
    """Score plans in many ways, fine-tune each a little, and correlate.

    Every plan leaves two files, its scores and its metric after fine-tuning; what is there is
    kept when the study is started again.

    Args:
        config: The composed configuration; ``bench`` as in ``configs/bench/fidelity.yaml``.

    Returns:
        ``fidelity.md``, ``fidelity.json`` and ``fidelity.png``.

    Raises:
        CheckpointError: The folder holds a study with other settings.
        RlpruneError: A bench is wrong.
    """
    bench = open_workbench(config)
    scorer = Scorer(bench)
    _same_study(bench)
    problem = bench.evaluator("evaluations.jsonl")
    try:
        plans = _plans(bench, problem)
        studied = [_study(bench, scorer, problem, at, len(plans), p) for at, p in enumerate(plans)]
    finally:
        problem.close()
    return _report(bench, studied, scorer.prepare_seconds)


def correlate(plans: Sequence[Mapping[str, Any]], metric: Metric) -> list[dict[str, Any]]:
    """Spearman's correlation of every score with the metric after fine-tuning, best first.

    Args:
        plans: Records with ``scores`` and ``after``, the metric of every fine-tuning.
        metric: The task's metric.

    Returns:
        Rows with ``rho``, its 90 % bootstrap interval over plans and the median seconds.
    """
    truth = [metric.score(statistics.fmean(plan["after"])) for plan in plans]
    columns: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for plan in plans:
        for row in plan["scores"]:
            columns.setdefault(tuple(row[key] for key in _KEYS), []).append(row)
    found = []
    for key, rows in columns.items():
        values = [row["value"] for row in rows]
        low, high = spearman_interval(values, truth)
        found.append(
            {
                **dict(zip(_KEYS, key, strict=True)),
                "rho": spearman(values, truth),
                "interval": [low, high],
                "seconds": statistics.median(row["seconds"] for row in rows),
            }
        )
    return sorted(found, key=lambda row: -row["rho"] if row["rho"] == row["rho"] else 2.0)


def _plans(bench: Workbench, problem: Problem) -> list[dict[str, Any]]:
    """The plans of the study, chosen once."""
    path = bench.folder / "plans.json"
    known = read_json(path)
    if known is None:
        options = bench.options
        found = diverse(
            problem, int(options["plans"]), int(options["good_evaluations"]), bench.job.spec.seed
        )
        known = [{"kind": kind, "plan": plan.to_json()} for kind, plan in found]
        write_json(path, known)
    return list(known)


def _study(
    bench: Workbench,
    scorer: Scorer,
    problem: Problem,
    number: int,
    total: int,
    plan: Mapping[str, Any],
) -> dict[str, Any]:
    """Scores and metric of one plan, from disk or computed."""
    made = Plan.from_json(plan["plan"])
    scores = read_json(bench.folder / "scores" / f"{number}.json")
    if scores is None:
        scores = scorer.score(made)
        write_json(bench.folder / "scores" / f"{number}.json", scores)
    values: list[float] = []
    started = time.perf_counter()
    for seed in range(int(bench.options["repeats"])):
        path = bench.folder / "after" / f"{number}-{seed}.json"
        known = read_json(path)
        if known is None:
            known = {"value": _after(bench, scorer, made, seed)}
            write_json(path, known)
        values.append(known["value"])
    log.info(
        "%d/%d %s plan: %s after fine-tuning, %.1f s", number + 1, total, plan["kind"],
        ", ".join(map(bench.data.task.metric.show, values)), time.perf_counter() - started,
    )  # fmt: skip
    costs = problem.costs(made)
    return {**plan, "costs": costs, "scores": scores, "after": values}


def _after(bench: Workbench, scorer: Scorer, plan: Any, seed: int) -> float:
    """The task's metric on held-out samples no score has used, after the fine-tuning."""
    job, options = bench.job, bench.options
    recipe = replace(bench.recipe, epochs=int(options["finetune_epochs"]))
    data = ShortEpochs(bench.data, options["finetune_images"], held=scorer.unseen)
    result = finetune(job.compacted(plan), job.dense, data, recipe, seed=seed, device=job.device)
    return result.holdout[bench.data.task.metric.name]


def _same_study(bench: Workbench) -> None:
    """A folder holds one study; settings that change results must not change between starts."""
    job, options = bench.job, dict(bench.options)
    for free in ("out", "repeats"):
        options.pop(free)
    asked = plain(
        {
            **job.settings["search"],
            "bench": options,
            "recipe": job.settings["finetune"],
        }
    )
    path = bench.folder / "study.json"
    known = read_json(path)
    if known is None:
        write_json(path, asked)
        return
    changed = [key for key in asked if known.get(key) != asked[key]]
    if changed:
        raise CheckpointError(
            f"{bench.folder} holds a study with other settings ({', '.join(changed)}); choose "
            "another bench.out, or delete it"
        )


def _report(
    bench: Workbench, plans: Sequence[Mapping[str, Any]], prepare: Mapping[str, float]
) -> list[Path]:
    metric = bench.data.task.metric
    rows = correlate(plans, metric)
    ceiling = None
    if len(plans[0]["after"]) > 1:
        ceiling = spearman(*([plan["after"][at] for plan in plans] for at in (0, 1)))
    folder = bench.folder
    report = {
        "problem": bench.name,
        "rows": rows,
        "ceiling": ceiling,
        "prepare_seconds": dict(prepare),
        "plans": [{key: plan[key] for key in plan if key != "scores"} for plan in plans],
        "environment": environment(),
    }
    write_json(folder / "fidelity.json", report)
    write_text(folder / "fidelity.md", _markdown(bench, report))
    save(_picture(rows, plans, metric), folder / "fidelity.png")
    return [folder / f"fidelity.{kind}" for kind in ("md", "json", "png")]


def _markdown(bench: Workbench, report: Mapping[str, Any]) -> str:
    options, plans = bench.options, report["plans"]
    metric = bench.data.task.metric
    reached = [statistics.fmean(plan["after"]) for plan in plans]
    images = options["finetune_images"] or bench.data.train_size
    head = ("score", "compensation", "statistics", "images", "rho", "90 % interval", "seconds")
    body = [
        (
            row["kind"],
            row["compensation"],
            row["statistics"],
            str(row["images"]),
            f"{row['rho']:.3f}",
            f"{row['interval'][0]:.2f} to {row['interval'][1]:.2f}",
            f"{row['seconds']:.3f}",
        )
        for row in report["rows"]
    ]
    about = report["environment"]
    once = ", ".join(f"{name} {value:.1f} s" for name, value in report["prepare_seconds"].items())
    lines = [
        f"## Which score ranks as fine-tuning does: {report['problem']}",
        f"Spearman's rho over {len(plans)} plans of equal cost with the held-out {metric.label} "
        f"after {options['finetune_epochs']} epochs of {images} samples "
        f"({metric.show(min(reached))} to {metric.show(max(reached))}, median "
        f"{metric.show(statistics.median(reached))}). "
        f"Seconds per evaluation: {about['processor']}, {about['threads']} threads. Once per "
        f"network: {once}.",
        markdown.table(head, body),
    ]
    if report["ceiling"] is not None:
        lines.append(f"Two fine-tunings with different seeds agree to rho {report['ceiling']:.3f}.")
    return "\n\n".join(lines) + "\n"


def _picture(
    rows: Sequence[Mapping[str, Any]], plans: Sequence[Mapping[str, Any]], metric: Metric
) -> Any:
    """Correlation against seconds for all scores, and the best score against the metric."""
    made = figure(10.0, 4.2)
    left, right = made.subplots(1, 2)
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    marks = dict(
        zip(dict.fromkeys(row["compensation"] for row in rows), "os^Dv<>P*Xhd", strict=False)
    )
    for row in rows:
        color = COLORS[kinds.index(row["kind"]) % len(COLORS)]
        face = color if row["statistics"] == "batch" else "none"
        mark = marks.get(row["compensation"], ".")
        left.plot(row["seconds"], row["rho"], mark, color=color, markerfacecolor=face, markersize=5)
    for number, kind in enumerate(kinds):
        left.plot([], [], "o", color=COLORS[number % len(COLORS)], label=kind)
    for name, mark in marks.items():
        left.plot([], [], mark, color="#555555", label=name)
    left.set_xscale("log")
    left.set_xlabel("seconds per evaluation (hollow: recalibrated)")
    left.set_ylabel(f"Spearman's rho with {metric.label} after fine-tuning")
    left.legend(fontsize=7, frameon=False, ncols=2)
    best = rows[0]
    for number, kind in enumerate(dict.fromkeys(plan["kind"] for plan in plans)):
        points = [
            (_value(plan, best), metric.scale * statistics.fmean(plan["after"]))
            for plan in plans
            if plan["kind"] == kind
        ]
        right.scatter(
            *zip(*points, strict=True), s=16, color=COLORS[number % len(COLORS)], label=kind
        )
    right.set_xlabel(", ".join(str(best[key]) for key in _KEYS))
    right.set_ylabel(f"held-out {metric.axis}, after fine-tuning")
    right.legend(fontsize=7, frameon=False)
    return made


def _value(plan: Mapping[str, Any], key: Mapping[str, Any]) -> float:
    for row in plan["scores"]:
        if all(row[name] == key[name] for name in _KEYS):
            return float(row["value"])
    raise KeyError(f"no score {[key[name] for name in _KEYS]}")
