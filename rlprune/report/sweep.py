"""Many runs in one table and one picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlprune.errors import ConfigError
from rlprune.files import read_json, write_atomically, write_text
from rlprune.report import figures, html
from rlprune.report.units import duration, number, percent

TERMINAL = ("run", "network", "agent", "budgets", "dense", "pruned", "change", "params", "MACs")
"""Columns that fit a terminal."""

COLUMNS = (
    "run", "network", "data", "agent", "seed", "budgets", "evaluations", "dense",
    "before fine-tuning", "pruned", "change", "params", "MACs", "latency", "time",
)  # fmt: skip
"""Columns of the page."""


def collect(folder: Path) -> tuple[list[dict[str, Any]], list[Path]]:
    """Read every run below a folder.

    Args:
        folder: Searched with all its subfolders.

    Returns:
        One row per finished run, sorted by its path, and the folders of unfinished runs.

    Raises:
        ConfigError: The folder does not exist or holds no run.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; give outputs/ or the folder of a sweep")
    found = sorted(path.parent for path in folder.rglob("run.json"))
    if not found:
        raise ConfigError(f"{folder} holds no run (no run.json below it)")
    rows, unfinished = [], []
    for path in found:
        if (path / "front.json").is_file():
            continue  # its limits are runs of their own, below it
        report = read_json(path / "report.json")
        if report is None:
            unfinished.append(path)
            continue
        rows.append(_row(path, folder, report))
    return rows, unfinished


def cells(
    rows: Sequence[dict[str, Any]], columns: Sequence[str] = COLUMNS
) -> list[tuple[str, ...]]:
    """The rows as text.

    Args:
        rows: From ``collect``.
        columns: Which of ``COLUMNS``.
    """
    return [tuple(_texts(row)[column] for column in columns) for row in rows]


def _texts(row: dict[str, Any]) -> dict[str, str]:
    return {
        **{key: str(row[key]) for key in ("run", "network", "data", "agent", "seed", "budgets")},
        "evaluations": str(row["evaluations"]),
        "dense": percent(row["dense_accuracy"]),
        "before fine-tuning": percent(row["accuracy_before_finetune"]),
        "pruned": percent(row["accuracy"]),
        "change": "-" if row["change"] is None else f"{100 * row['change']:+.2f}",
        "params": f"{100 * row['params_share']:.1f} %",
        "MACs": f"{100 * row['macs_share']:.1f} %",
        "latency": f"{100 * row['latency_share']:.1f} %",
        "time": duration(row["seconds"]),
    }


def write(folder: Path, rows: Sequence[dict[str, Any]]) -> list[Path]:
    """Write ``sweep.csv``, ``sweep.png`` and ``sweep.html`` into the folder.

    Returns:
        The three paths.
    """
    paths = [folder / f"sweep.{kind}" for kind in ("csv", "png", "html")]
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(paths[0], text.getvalue())
    figure = figures.runs(rows)
    write_atomically(paths[1], lambda path: figure.savefig(path, dpi=120))
    body = (
        f"<h1>{len(rows)} runs</h1>"
        + html.table(COLUMNS, cells(rows))
        + html.picture(figure, "accuracy against what was kept")
    )
    write_text(paths[2], html.page("rlprune sweep", body))
    return paths


def _row(path: Path, folder: Path, report: dict[str, Any]) -> dict[str, Any]:
    dense, pruned = report["dense"], report["pruned"]
    run = read_json(path / "run.json") or {}
    search = run.get("settings", {}).get("search", {})
    agent = search.get("agent")
    accuracies = (dense["accuracy"], pruned["accuracy"])
    known = None not in accuracies
    return {
        "run": path.relative_to(folder).as_posix(),
        "network": str((run.get("factory") or {}).get("name", "-")),
        "data": _name_of(report.get("data")),
        "agent": str(agent.get("name") if isinstance(agent, dict) else agent),
        "seed": report["seed"],
        "budgets": ", ".join(
            f"{name} {number(b['value'], b['unit'])} of {number(b['limit'], b['unit'])}"
            for name, b in report["budgets"].items()
        ),
        "evaluations": report["evaluations"],
        "quality": report["quality"],
        "objective": report["objective"],
        "dense_accuracy": dense["accuracy"],
        "accuracy_before_finetune": report["pruned_before_finetune"]["accuracy"],
        "accuracy": pruned["accuracy"],
        "change": pruned["accuracy"] - dense["accuracy"] if known else None,
        "params_share": pruned["params"] / dense["params"],
        "macs_share": pruned["macs"] / dense["macs"],
        "latency_share": pruned["latency_ms"] / dense["latency_ms"],
        "seconds": report["seconds"],
    }


def _name_of(data: str | None) -> str:
    """The data set's name out of its representation ``Data('name', ...)``."""
    return data.split("'")[1] if data and "'" in data else "-"
