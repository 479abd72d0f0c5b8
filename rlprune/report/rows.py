"""The rows of a report's tables, shared by the page and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlprune.budgets import reported
from rlprune.report.units import number, ratio
from rlprune.tasks.metric import SHARE, Metric

Row = tuple[str, ...]

_OLD = (
    Metric("accuracy", "test accuracy", unit=SHARE),
    Metric("holdout_accuracy", "held-out accuracy", unit=SHARE),
    Metric("score", "score"),
)


def comparison(report: Mapping[str, Any]) -> list[Row]:
    """Dense beside pruned: what, dense, before fine-tuning, pruned, share of dense."""
    dense, before, pruned = (report[k] for k in ("dense", "pruned_before_finetune", "pruned"))
    rows: list[Row] = []
    for column in columns(report):
        key = column.name
        values = [column.show(network[key]) for network in (dense, before, pruned)]
        rows.append((column.label, *values, column.change(dense[key], pruned[key])))
    for metric in reported():
        large, small = dense[metric.field], pruned[metric.field]
        shown = number(small, metric.unit)
        rows.append((metric.title, number(large, metric.unit), shown, shown, ratio(small, large)))
    return rows


def columns(report: Mapping[str, Any]) -> list[Metric]:
    """What was measured of the networks, the metric that a run is judged by first.

    Reports of older versions hold the accuracy on two splits, or a score.
    """
    found = report.get("metrics")
    if found is None:
        return [metric for metric in _OLD if report["pruned"].get(metric.name) is not None]
    return [Metric(**column) for column in found]


def held_out(report: Mapping[str, Any]) -> Metric | None:
    """The metric on held-out samples that decides, named as in the history of a training."""
    found = [column for column in columns(report) if column.name.startswith("holdout_")]
    return found[0] if found else None


def budgets(report: Mapping[str, Any]) -> list[Row]:
    """Every budget: name, asked for, dense value, limit, value, share of the limit, met."""
    return [
        (
            name,
            budget["spec"],
            number(budget["dense"], budget["unit"]),
            number(budget["limit"], budget["unit"]),
            number(budget["value"], budget["unit"]),
            ratio(budget["value"], budget["limit"]),
            "met" if budget["value"] <= budget["limit"] else "BROKEN",
        )
        for name, budget in report["budgets"].items()
    ]


def rounds(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rounds of a schedule: shares left by what is counted, the metric before and after.

    The last round of an iterative schedule is trained as the run's own fine-tuning. Empty where
    there were no rounds, or no training.
    """
    metric, told = held_out(report), report.get("rounds", [])
    if metric is None:
        return []
    found = []
    for place, row in enumerate(told, start=1):
        trained = row["finetune"]
        if place == len(told) and not trained:
            trained = report["finetune"]["history"]
        if not trained:
            return []
        shares = {"units": row["units"]} if "units" in row else {
            name: cost / report["budgets"][name]["dense"] for name, cost in row["costs"].items()
        }  # fmt: skip
        values = [epoch[metric.name] for epoch in trained]
        found.append({"shares": shares, "before": values[0], "after": values[-1]})
    return found


def load_call(folder: str, report: Mapping[str, Any]) -> str:
    """What a reader writes to load the pruned network of a run."""
    trust = ", trust=True" if report.get("trust") else ""
    return f'rlprune.load("{folder}"{trust})'
