"""The front of a run with a list of limits: a table, a picture, a page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlprune.errors import ConfigError
from rlprune.files import read_json, write_atomically, write_json, write_text
from rlprune.report import figures, html, markdown
from rlprune.report.rows import columns as measures
from rlprune.report.units import number, ratio
from rlprune.tasks.metric import Metric

FILE = "front.json"

HEAD = (
    "limit", "cost", "of dense", "before fine-tuning", "after", "against dense", "parameters",
    "MACs", "latency", "evaluations",
)  # fmt: skip
"""Columns of the table."""

TERMINAL = ("limit", "cost", "of dense", "before", "after", "change", "evaluations")
"""Columns that fit a terminal."""


def write(
    folder: Path,
    front: Mapping[str, Any],
    labels: Sequence[str],
    reports: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Write ``front.json``, ``front.md``, ``front.png`` and ``front.html``.

    Args:
        folder: The folder above those of the limits.
        front: The varied ``budget`` by name, its ``limits`` as asked for, loosest first.
        labels: Folder of every limit.
        reports: Content of every limit's ``report.json``.

    Returns:
        The content of ``front.json``.
    """
    table = gather(front, labels, reports)
    body = rows(table)
    figure = figures.front(table)
    write_json(folder / FILE, table)
    write_text(folder / "front.md", _markdown(table, body))
    write_atomically(folder / "front.png", lambda path: figure.savefig(path, dpi=120))
    page = (
        f"<h1>{table['measure']} against {table['budget']}</h1>"
        + html.picture(figure, f"{table['measure']} against {table['budget']}")
        + html.table(HEAD, body)
        + "".join(
            f'<p><a href="{label}/report.html">{label}</a>: <code>rlprune.load("'
            f'{(folder / label).as_posix()}")</code></p>'
            for label in labels
        )
    )
    write_text(folder / "front.html", html.page("rlprune front", page))
    return table


def refresh(folder: Path) -> dict[str, Any]:
    """Write the front again from the reports of its limits, as they are now.

    Raises:
        ConfigError: The folder holds no finished front.
    """
    known = read_json(folder / FILE)
    if known is None:
        raise ConfigError(f"{folder} holds no finished front (no {FILE})")
    labels = [point["folder"] for point in known["points"]]
    reports = [read_json(folder / label / "report.json") for label in labels]
    missing = [label for label, report in zip(labels, reports, strict=True) if report is None]
    if missing:
        raise ConfigError(f"{folder / missing[0]} holds no report.json; run its report stage again")
    front = {"budget": known["budget"], "limits": [p["limit"] for p in known["points"]]}
    return write(folder, front, labels, reports)


def gather(
    front: Mapping[str, Any], labels: Sequence[str], reports: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The content of ``front.json``: the dense network and one point per limit."""
    name = front["budget"]
    metric = measures(reports[0])[0]
    key = metric.name
    first = reports[0]["budgets"][name]
    return {
        "budget": name,
        "unit": first["unit"],
        "measure": metric.label,
        "metric": asdict(metric),
        "dense": {"cost": first["dense"], "value": reports[0]["dense"].get(key)},
        "evaluations": sum(report["evaluations"] for report in reports),
        "objective": statistics.fmean(report["objective"] for report in reports),
        "points": [
            {
                "limit": limit,
                "folder": label,
                "limit_value": report["budgets"][name]["limit"],
                "cost": report["budgets"][name]["value"],
                "before": report["pruned_before_finetune"].get(key),
                "after": report["pruned"].get(key),
                "quality": report["quality"],
                "objective": report["objective"],
                "evaluations": report["evaluations"],
                "params": report["pruned"]["params"] / report["dense"]["params"],
                "macs": report["pruned"]["macs"] / report["dense"]["macs"],
                "latency": report["pruned"]["latency_ms"] / report["dense"]["latency_ms"],
                "costs": {other: b["value"] for other, b in report["budgets"].items()},
            }
            for limit, label, report in zip(front["limits"], labels, reports, strict=True)
        ],
    }


def rows(table: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The rows of the table as text, the dense network first."""
    dense, unit = table["dense"], table["unit"]
    metric = Metric(**table["metric"])
    value = metric.show(dense["value"])
    top = (
        "dense",
        number(dense["cost"], unit),
        "100.0 %",
        value,
        value,
        "",
        *(["100.0 %"] * 3),
        "",
    )
    return [
        top,
        *(
            (
                f"{table['budget']} {point['limit']}",
                number(point["cost"], unit),
                ratio(point["cost"], dense["cost"]),
                metric.show(point["before"]),
                metric.show(point["after"]),
                metric.change(dense["value"], point["after"]),
                *(ratio(point[share], 1.0) for share in ("params", "macs", "latency")),
                str(point["evaluations"]),
            )
            for point in table["points"]
        ),
    ]


def terminal(table: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The rows of the table, as wide as a terminal."""
    return [(*row[:6], row[-1]) for row in rows(table)]


def _markdown(table: Mapping[str, Any], body: Sequence[Sequence[str]]) -> str:
    return (
        f"# {table['measure']} against {table['budget']}\n\n"
        f"{markdown.table(HEAD, body)}\n\n"
        f"{table['evaluations']} unique evaluations in all.\n"
    )
