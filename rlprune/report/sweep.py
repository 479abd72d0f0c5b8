"""Many runs in one table and one picture."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rlprune.errors import ConfigError
from rlprune.files import read_json, write_atomically, write_text
from rlprune.report import figures, html
from rlprune.report.rows import columns
from rlprune.report.units import duration, number
from rlprune.tasks.metric import SHARE, Metric

COLUMNS = (
    "run", "network", "data", "agent", "seed", "limits", "budgets", "evaluations", "metric",
    "dense", "before fine-tuning", "pruned", "change", "params", "MACs", "latency", "time",
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
        if any((path / name).is_file() for name in ("front.json", "smallest.json")):
            continue  # its limits are runs of their own, below it
        report = read_json(path / "report.json")
        if report is None:
            unfinished.append(path)
            continue
        rows.append(_row(path, folder, report))
    return rows, unfinished


def cells(rows: Sequence[dict[str, Any]], chosen: Sequence[str] = COLUMNS) -> list[tuple[str, ...]]:
    """The rows as text.

    Args:
        rows: From ``collect``.
        chosen: Which of ``COLUMNS``.
    """
    return [tuple(_texts(row)[column] for column in chosen) for row in rows]


_SETTING = ("network", "data", "agent", "limits", "evaluations")
"""What makes two runs of a sweep alike but for their seeds."""

_MEASURED = ("pruned", "change", "params", "MACs")


def terminal(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Columns that fit a terminal: what tells the runs apart, and what came out."""
    return ("run", *_varying(rows), "pruned", "change", "params", "MACs")


def settings(rows: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """One line per setting, mean and standard deviation over its runs.

    Args:
        rows: From ``collect``.

    Returns:
        The head and the lines; no lines where every setting was run once.
    """
    alike: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        alike.setdefault(tuple(row[key] for key in _SETTING), []).append(row)
    told = _varying(rows) or ("network",)
    lines = [
        (*(str(same[0][key]) for key in told), str(len(same)), *_spread(same))
        for same in alike.values()
    ]
    head = (*told, "runs", *_MEASURED)
    return head, lines if len(lines) < len(rows) else []


def _varying(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(key for key in _SETTING if len({str(row[key]) for row in rows}) > 1)


def _spread(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Mean and standard deviation of what was measured, as text."""
    for name in _MEASURED:
        key = name if name in rows[0] else f"{name.lower()}_share"
        values = [row[key] for row in rows if row[key] is not None]
        scale = 100.0 if key.endswith("_share") else float(rows[0]["scale"])
        if not values:
            yield "-"
            continue
        mean = scale * statistics.fmean(values)
        digits, unit = (1, " %") if key.endswith("_share") else (2, "")
        spread = f" ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
        yield f"{mean:{'+' if name == 'change' else ''}.{digits}f}{spread}{unit}"


_SHOWN = {"dense": "dense", "before fine-tuning": "before_finetune", "pruned": "pruned"}


_TOLD = ("run", "network", "data", "agent", "seed", "limits", "budgets")


def _texts(row: dict[str, Any]) -> dict[str, str]:
    metric = Metric("", str(row["metric"]), unit=SHARE if row["scale"] == 100 else "")
    return {
        **{key: str(row[key]) for key in _TOLD},
        "evaluations": str(row["evaluations"]),
        "metric": row["metric"] or "-",
        **{key: metric.show(row[value]) for key, value in _SHOWN.items()},
        "change": "-" if row["change"] is None else metric.change(0.0, row["change"]),
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
    head = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, head, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(paths[0], text.getvalue())
    figure = figures.runs(rows)
    write_atomically(paths[1], lambda path: figure.savefig(path, dpi=120))
    head_of, lines = settings(rows)
    body = (
        f"<h1>{len(rows)} runs</h1>"
        + (html.table(head_of, lines) if lines else "")
        + html.table(COLUMNS, cells(rows))
        + html.picture(figure, "quality against what was kept")
    )
    write_text(paths[2], html.page("rlprune sweep", body))
    return paths


def _row(path: Path, folder: Path, report: dict[str, Any]) -> dict[str, Any]:
    dense, pruned = report["dense"], report["pruned"]
    run = read_json(path / "run.json") or {}
    search = run.get("settings", {}).get("search", {})
    agent = search.get("agent")
    metric = next(iter(columns(report)), None)
    values: dict[str, float | None] = dict.fromkeys(_SHOWN.values())
    if metric is not None:
        before = report["pruned_before_finetune"]
        values = {
            "dense": dense[metric.name],
            "before_finetune": before[metric.name],
            "pruned": pruned[metric.name],
        }
    change = None if metric is None else pruned[metric.name] - dense[metric.name]
    return {
        "run": path.relative_to(folder).as_posix(),
        "network": str((run.get("factory") or {}).get("name", "-")),
        "data": _name_of(report.get("data")),
        "agent": str(agent.get("name") if isinstance(agent, dict) else agent),
        "seed": report["seed"],
        "limits": ", ".join(f"{n} {b.get('spec', '')}" for n, b in report["budgets"].items()),
        "budgets": ", ".join(
            f"{name} {number(b['value'], b['unit'])} of {number(b['limit'], b['unit'])}"
            for name, b in report["budgets"].items()
        ),
        "evaluations": report["evaluations"],
        "quality": report["quality"],
        "objective": report["objective"],
        "metric": None if metric is None else metric.label,
        "scale": 1.0 if metric is None else metric.scale,
        **values,
        "change": change,
        "params_share": pruned["params"] / dense["params"],
        "macs_share": pruned["macs"] / dense["macs"],
        "latency_share": pruned["latency_ms"] / dense["latency_ms"],
        "seconds": report["seconds"],
    }


def _name_of(data: str | None) -> str:
    """The data set's name out of its representation ``Data('name', ...)``."""
    return data.split("'")[1] if data and "'" in data else "-"
