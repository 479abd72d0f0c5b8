"""The rows of a report's tables, shared by the page and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlprune.budgets import reported
from rlprune.report.units import number, percent, ratio

Row = tuple[str, ...]


def comparison(report: Mapping[str, Any]) -> list[Row]:
    """Dense beside pruned: what, dense, before fine-tuning, pruned, share of dense."""
    dense, before, pruned = (report[k] for k in ("dense", "pruned_before_finetune", "pruned"))
    rows: list[Row] = []
    for key, label in (
        ("accuracy", "test accuracy"),
        ("holdout_accuracy", "held-out accuracy"),
    ):
        if dense.get(key) is not None:
            change = 100 * (pruned[key] - dense[key])
            rows.append(
                (label, percent(dense[key]), percent(before[key]), percent(pruned[key]),
                 f"{change:+.2f} points")
            )  # fmt: skip
    if dense.get("score") is not None:
        rows.append(
            ("score", number(dense["score"]), number(before["score"]), number(pruned["score"]),
             f"{pruned['score'] - dense['score']:+.4g}")
        )  # fmt: skip
    for metric in reported():
        large, small = dense[metric.field], pruned[metric.field]
        shown = number(small, metric.unit)
        rows.append((metric.title, number(large, metric.unit), shown, shown, ratio(small, large)))
    return rows


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


def load_call(folder: str, report: Mapping[str, Any]) -> str:
    """What a reader writes to load the pruned network of a run."""
    trust = ", trust=True" if report.get("trust") else ""
    return f'rlprune.load("{folder}"{trust})'
