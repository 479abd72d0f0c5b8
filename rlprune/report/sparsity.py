"""``rlprune sparsify``'s table: what zeros are worth on disk and on the clock."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlprune.files import write_text
from rlprune.report import figures, html, markdown
from rlprune.report.units import number, ratio
from rlprune.tasks.metric import Metric

FILE = "sparsity.json"
HEAD = (
    "network", "on disk", "of dense", "latency", "of dense", "held-out", "test", "non-zero",
    "MACs", "",
)  # fmt: skip
TERMINAL = ("network", "on disk", "of dense", "latency", "of dense", "held-out", "test")
"""Columns that fit a terminal."""


def rows(table: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The rows as text, the dense network first."""
    metric, dense = Metric(**table["metric"]), table["rows"][0]
    return [
        (
            row["name"],
            number(row["bytes"], "B"),
            ratio(row["bytes"], dense["bytes"]),
            number(row.get("ms"), "ms"),
            ratio(row.get("ms"), dense["ms"]),
            metric.show(row["holdout"]),
            metric.show(row["test"]) if "test" in row else "-",
            ratio(row["nonzeros"], dense["params"]),
            ratio(row["macs"], dense["macs"]),
            row["note"],
        )
        for row in table["rows"]
    ]


def terminal(table: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The rows, as wide as a terminal."""
    return [row[: len(TERMINAL)] for row in rows(table)]


def write(folder: Path, table: Mapping[str, Any]) -> None:
    """Write ``sparsity.md`` and ``sparsity.html``."""
    body, latency = rows(table), table["latency"]
    shares = ", ".join(f"{100 * share:g} %" for share in table["asked"]["compact"])
    text = (
        f"Latency: median of {latency['repeats']} runs in turn with the dense network, batch "
        f"{latency['batch_size']}, {latency['device']}, {latency['threads']} threads. Every "
        f"network but the dense one was fine-tuned for {table['epochs']} epochs; zeros came "
        f"{_when(table['schedule'])}. The compacted network is the smallest of those at {shares} "
        "of the parameters that is at least as good on held-out samples as the first network with "
        "zeros."
    )
    write_text(
        folder / "sparsity.md", f"# Zeros and units\n\n{markdown.table(HEAD, body)}\n\n{text}\n"
    )
    picture = html.picture(figures.sparsity(table), "size, latency and quality of every network")
    page = f"<h1>Zeros and units</h1>{picture}{html.table(HEAD, body)}<p class=muted>{text}</p>"
    write_text(folder / "sparsity.html", html.page("rlprune sparsify", page))


def _when(schedule: Mapping[str, Any]) -> str:
    if schedule["name"] == "oneshot":
        return "at once"
    return f"in {schedule['rounds']} steps, {schedule['name']}"
