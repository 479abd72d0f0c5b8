"""The pictures of a report, as PNG in base64."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlprune.tasks.metric import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DENSE, KEPT, BAD, LINE = "#d6dbe3", "#2f6fb0", "#c9ccd1", "#c8502d"
_WIDTH = 9.0


def encode(figure: Figure) -> str:
    """A figure as a ``data:`` URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def layers(groups: Sequence[Mapping[str, Any]]) -> Figure:
    """One bar per group: dense width behind, kept width in front."""
    shown = [group for group in groups if group["prunable"]] or list(groups)
    figure = _figure(_WIDTH, max(1.6, 0.24 * len(shown) + 0.8))
    axes = figure.add_subplot()
    positions = range(len(shown))
    axes.barh(positions, [g["dense"] for g in shown], color=DENSE, label="dense")
    axes.barh(positions, [g["kept"] for g in shown], color=KEPT, label="kept")
    for position, group in zip(positions, shown, strict=True):
        axes.text(
            group["dense"], position, f" {group['kept']}/{group['dense']}", va="center", fontsize=7
        )
    axes.set_yticks(list(positions), [g["name"] for g in shown], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("units")
    axes.margins(x=0.12, y=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, fontsize=8, frameon=False)
    return figure


def search(history: Sequence[Mapping[str, str]]) -> Figure:
    """Quality of every evaluated plan, the best feasible one so far, and the multipliers."""
    lambdas = [key for key in (history[0] if history else ()) if key.endswith("/lambda")]
    lambdas = lambdas or sorted({k for row in history for k in row if k.endswith("/lambda")})
    figure = _figure(_WIDTH, 5.4 if lambdas else 3.4)
    grid = figure.subplots(2 if lambdas else 1, 1, sharex=True, squeeze=False)
    axes = grid[0][0]
    for feasible, color, label in ((False, BAD, "over a budget"), (True, KEPT, "feasible")):
        points = [
            (float(row["evaluation"]), float(row["quality"]))
            for row in history
            if bool(float(row["feasible"])) is feasible
        ]
        if points:
            axes.scatter(*zip(*points, strict=True), s=11, color=color, label=label)
    best = _series(history, "best_feasible")
    if best:
        axes.step(*zip(*best, strict=True), where="post", color=LINE, label="best feasible")
    axes.set_ylabel("quality without fine-tuning")
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    if lambdas:
        below = grid[1][0]
        for key in lambdas:
            points = _series(history, key)
            if points:
                below.step(*zip(*points, strict=True), where="post", label=key.split("/")[1])
        below.set_ylim(0, max(0.1, 1.05 * below.get_ylim()[1]))
        below.set_ylabel("multiplier $\\lambda$")
        below.legend(fontsize=8, frameon=False)
    grid[-1][0].set_xlabel("unique evaluations")
    return figure


def training(history: Sequence[Mapping[str, Any]], metric: Metric, dense: float | None) -> Figure:
    """A metric on held-out samples by epoch of fine-tuning, the dense network's as a line."""
    figure = _figure(_WIDTH, 2.6)
    axes = figure.add_subplot()
    epochs = [row["epoch"] for row in history]
    values = [metric.scale * row[metric.name] for row in history]
    axes.plot(epochs, values, marker="o", markersize=3, color=KEPT, label="pruned")
    if dense is not None:
        axes.axhline(metric.scale * dense, color=LINE, linewidth=1, label="dense")
    axes.set_xlabel("epoch")
    axes.set_ylabel(metric.axis)
    axes.legend(fontsize=8, frameon=False, loc="best")
    return figure


def rounds(
    shares: Mapping[str, Sequence[float]],
    before: Sequence[float],
    after: Sequence[float],
    metric: Metric,
    dense: float | None,
) -> Figure:
    """The curve over the rounds of a schedule.

    Args:
        shares: What is left of the dense network after every round, by what is counted.
        before: The metric of every round's network before it is trained.
        after: The same after it.
        metric: On held-out samples.
        dense: The dense network's.
    """
    figure = _figure(_WIDTH, 2.8)
    left, right = figure.subplots(1, 2)
    count = len(after)
    for name, values in shares.items():
        left.plot(range(count + 1), [100, *(100 * value for value in values)], marker="o",
                  markersize=4, label=name)  # fmt: skip
    left.set_ylim(0, 105)
    left.set_ylabel("% of the dense network")
    numbers = range(1, count + 1)
    for values, color, label in (
        (before, BAD, "just pruned"), (after, KEPT, "trained"),
    ):  # fmt: skip
        right.plot(numbers, [metric.scale * value for value in values], marker="o", markersize=4,
                   color=color, label=label)  # fmt: skip
    if dense is not None:
        right.axhline(metric.scale * dense, color=LINE, linewidth=1, label="dense")
    right.set_ylabel(metric.axis)
    for axes in (left, right):
        axes.set_xlabel("round")
        axes.set_xticks(range(count + 1) if axes is left else numbers)
        axes.legend(fontsize=8, frameon=False, loc="best")
    return figure


def runs(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Runs of a sweep: change of the metric against the share of MACs and of parameters kept."""
    labels = dict.fromkeys(str(row["metric"]) for row in rows if row["change"] is not None)
    figure = _figure(_WIDTH, 3.8)
    for axes, key, label in zip(
        figure.subplots(1, 2, sharey=True),
        ("macs_share", "params_share"),
        ("MACs kept, %", "parameters kept, %"),
        strict=True,
    ):
        alike: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            if row["change"] is not None:
                name = f"{row['network']}, {row['agent']}"
                alike.setdefault(name, []).append((100 * row[key], row["scale"] * row["change"]))
        for name, points in alike.items():  # seeds and limits are points, not a line
            axes.plot(*zip(*points, strict=True), "o", markersize=5, alpha=0.7, label=name)
        axes.axhline(0, color=BAD, linewidth=1)
        axes.set_xlabel(label)
    figure.axes[0].set_ylabel(f"{' or '.join(labels)} against dense")
    if figure.axes[0].get_legend_handles_labels()[0]:
        figure.axes[0].legend(fontsize=8, frameon=False)
    return figure


def front(table: Mapping[str, Any]) -> Figure:
    """A front: the measure before and after fine-tuning against the share of the cost kept."""
    figure = _figure(_WIDTH, 4.2)
    axes = figure.add_subplot()
    metric = Metric(**table["metric"])
    scale = metric.scale
    cost, dense = table["dense"]["cost"], table["dense"]["value"]
    for key, color, label in (
        ("before", BAD, "before fine-tuning"),
        ("after", KEPT, "after fine-tuning"),
    ):
        points = [(100 * p["cost"] / cost, scale * p[key]) for p in table["points"]]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=5, color=color, label=label)
    for point in table["points"]:
        axes.annotate(
            point["limit"], (100 * point["cost"] / cost, scale * point["after"]),
            textcoords="offset points", xytext=(0, 7), ha="center", fontsize=8,
        )  # fmt: skip
    axes.plot([100], [scale * dense], marker="*", markersize=12, color=LINE, linestyle="none",
              label="dense")  # fmt: skip
    axes.axhline(scale * dense, color=LINE, linewidth=0.8, linestyle=":")
    axes.set_xlabel(f"{table['budget']}, % of the dense network")
    axes.set_ylabel(metric.axis)
    axes.margins(y=0.12)
    axes.legend(fontsize=8, frameon=False, loc="best")
    return figure


def gates(snapshots: Sequence[Mapping[str, Any]]) -> Figure:
    """How far gates were open along their training: layers and branches over time, all at the end.

    Args:
        snapshots: ``step``, ``groups`` and ``branches`` (mean openness by name) and ``histogram``.
    """
    steps = [row["step"] for row in snapshots]
    kinds = [kind for kind in ("groups", "branches") if snapshots[0][kind]]
    counts = [len(snapshots[0][kind]) for kind in kinds]
    figure = _figure(_WIDTH, 0.17 * sum(counts) + 1.2 * len(kinds) + 0.6)
    grid = figure.add_gridspec(len(kinds), 2, width_ratios=(3, 1), height_ratios=counts)
    for row, kind in enumerate(kinds):
        names = list(snapshots[0][kind])
        axes = figure.add_subplot(grid[row, 0])
        values = [[moment[kind][name] for moment in snapshots] for name in names]
        image = axes.imshow(values, vmin=0, vmax=1, aspect="auto", cmap="Blues")
        axes.set_yticks(range(len(names)), names, fontsize=6)
        axes.set_xticks(range(len(steps)), [str(step) for step in steps], fontsize=7)
        axes.set_title("units, mean of every group" if kind == "groups" else kind, fontsize=8)
    axes.set_xlabel("step")
    figure.colorbar(image, ax=figure.axes[: len(kinds)], label="open")
    last = snapshots[-1]["histogram"]
    below = figure.add_subplot(grid[:, 1])
    below.bar([(at + 0.5) / len(last) for at in range(len(last))], last, 0.9 / len(last),
              color=KEPT)  # fmt: skip
    below.set_xlabel("open, at the end")
    below.set_ylabel("gates")
    return figure


def sparsity(table: Mapping[str, Any]) -> Figure:
    """Size, latency and quality of networks with zeros and of compacted ones."""
    shown = table["rows"]
    metric = Metric(**table["metric"])
    figure = _figure(_WIDTH + 2, 0.42 * len(shown) + 1.0)
    columns = (
        ("on disk, % of dense", [100 * row["bytes"] / shown[0]["bytes"] for row in shown]),
        ("latency, % of dense", [100 * row.get("ms", 0) / shown[0]["ms"] for row in shown]),
        (metric.axis, [metric.scale * row["holdout"] for row in shown]),
    )
    places = range(len(shown))
    for axes, (label, values) in zip(figure.subplots(1, 3, sharey=True), columns, strict=True):
        colors = [DENSE if place == 0 else KEPT for place in places]
        axes.barh(places, values, color=colors)
        for place, value in zip(places, values, strict=True):
            axes.text(value, place, f" {value:.3g}", va="center", fontsize=7)
        axes.set_xlabel(label)
        axes.margins(x=0.16)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_yticks(places, [row["name"] for row in shown], fontsize=7)
    figure.axes[0].invert_yaxis()
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _series(history: Sequence[Mapping[str, str]], key: str) -> list[tuple[float, float]]:
    points = [
        (float(row["evaluation"]), float(row[key]))
        for row in history
        if row.get(key) not in ("", None)
    ]
    return [(x, y) for x, y in points if y == y]
