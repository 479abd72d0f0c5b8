"""``rlprune bench report``: finished cells of the search benchmark as table, picture and JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlprune.bench.cells import planned
from rlprune.bench.tables import COLORS, figure, percent, save, spearman, spread
from rlprune.bench.tuning import shown
from rlprune.errors import ConfigError
from rlprune.files import read_json, write_json, write_text
from rlprune.report import markdown
from rlprune.tasks import Metric

HEAD = (
    "agent", "evaluations", "seeds", "quality", "before", "after fine-tuning",
    "slack, %", "seconds", "of them env and agent",
)  # fmt: skip

PREDICTION = "prediction.json"
_FEWEST_PLANS = 6


def write(folder: Path) -> list[Path]:
    """Gather every problem below a folder.

    Args:
        folder: ``bench.out`` of the search benchmark.

    Returns:
        ``report.md``, ``report.json`` and a picture per problem.

    Raises:
        ConfigError: There is no finished cell.
    """
    problems = sorted(path.parent for path in folder.glob("*/problem.json"))
    paths, sections, summary = [], [], {}
    for place in problems:
        cells = _cells(place)
        if not cells:
            continue
        about = read_json(place / "problem.json")
        rows = summarize(cells)
        dense = (read_json(place / "dense.json") or {}).get("measured")
        missing = _missing(about, cells)
        prediction = read_json(place / PREDICTION)
        summary[place.name] = {
            "dense": dense, "rows": rows, "missing": missing, "prediction": prediction,
            "proxy": agreement(cells, metric_of(about)),
        }  # fmt: skip
        paths.append(_picture(place, about, cells))
        sections.append(_section(about, summary[place.name], paths[-1].relative_to(folder)))
    if not sections:
        raise ConfigError(f"{folder} holds no finished cell; run: rlprune bench search ...")
    write_text(folder / "report.md", "\n\n".join(sections) + "\n")
    write_json(folder / "report.json", summary)
    return [folder / "report.md", folder / "report.json", *paths]


def summarize(cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per agent and number of evaluations, over its seeds.

    Args:
        cells: Contents of cell files.

    Returns:
        Rows, fewest evaluations first, the best median quality first among equals.
    """
    kinds: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for cell in cells:
        kinds.setdefault((cell["label"], cell["evaluations"]), []).append(cell)
    rows = [_row(label, count, group) for (label, count), group in kinds.items()]
    return sorted(rows, key=lambda row: (row["evaluations"], -_middle(row["quality"])))


def agreement(cells: Iterable[Mapping[str, Any]], metric: Metric) -> dict[str, Any] | None:
    """Whether quality ranks what the searches found as fine-tuning does.

    Args:
        cells: Contents of cell files; those of other libraries, compensated otherwise, are left
            out, and plans found twice count once.
        metric: The task's metric, for its direction.

    Returns:
        Spearman's rho of quality with the task's metric after fine-tuning on the test split
        (held-out where there is none), and the number of plans; None for fewer than six plans.
    """
    pairs: dict[str, tuple[float, float]] = {}
    for cell in cells:
        if "plan" in cell and "tuned" in cell:
            after = cell["tuned"]["after"]
            found = after["holdout"] if after["test"] is None else after["test"]
            pairs[cell["plan"]] = (cell["quality"], metric.score(found))
    if len(pairs) < _FEWEST_PLANS:
        return None
    qualities, reached = zip(*pairs.values(), strict=True)
    return {"plans": len(pairs), "rho": spearman(qualities, reached)}


def metric_of(about: Mapping[str, Any]) -> Metric:
    """The metric that a problem's networks were measured by."""
    return Metric(**about["metric"])


def _row(label: str, count: int, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    worked = [cell for cell in cells if "error" not in cell]
    tuned = [cell["tuned"] for cell in worked if "tuned" in cell]
    split = "test" if tuned and all(t["after"]["test"] is not None for t in tuned) else "holdout"
    seconds = [cell["seconds"] for cell in worked]
    return {
        "label": label,
        "evaluations": count,
        "unique": [cell["unique"] for cell in worked],
        "seeds": [cell["seed"] for cell in worked],
        "quality": [cell["quality"] for cell in worked],
        "quality_as_plan": [c["quality_as_plan"] for c in worked if "quality_as_plan" in c],
        "split": split,
        "before": [entry["before"][split] for entry in tuned],
        "after": [run[split] for entry in tuned for run in entry["runs"]],
        "slack": [min(b["slack"] for b in cell["budgets"].values()) for cell in worked],
        "seconds": [entry["total"] for entry in seconds],
        "env_and_agent": [e["env_and_agent"] for e in seconds if "env_and_agent" in e],
        "errors": [cell["error"] for cell in cells if "error" in cell],
    }


def _section(about: Mapping[str, Any], summary: Mapping[str, Any], picture: Path) -> str:
    rows, dense, missing = (summary[key] for key in ("rows", "dense", "missing"))
    kind, images = (about["config"]["evaluator"][k] for k in ("quality", "rescore_images"))
    limits = ", ".join(
        f"{name} at most {100 * b['limit'] / b['dense']:.4g} % of {b['dense']:.6g}"
        for name, b in about["budgets"].items()
    )
    lines = [
        f"## {about['name']}",
        f"{about['data']}; {limits}; {len(about['decisions'])} decisions. Quality: {kind} on up "
        f"to {images} held-out samples, those the search did not use first, without fine-tuning; "
        f"median (smallest to largest) over seeds. Compensation: {about['compensation']}. "
        f"Times: {about['environment']['processor']}, {about['environment']['threads']} threads.",
        markdown.table(HEAD, [_shown(row, metric_of(about)) for row in rows]),
        f"![quality against unique evaluations]({picture.as_posix()})",
    ]
    if dense is not None:
        lines.insert(2, f"Dense network: {shown(dense, metric_of(about))}.")
    lines += [f"{row['label']}: {text}" for row in rows for text in row["errors"]]
    lines += [
        f"{row['label']}: its widths with rlprune's units and compensation score "
        f"{row['quality_as_plan'][0]:.4f}."
        for row in rows
        if row["quality_as_plan"]
    ]
    if summary["prediction"] is not None:
        lines.append(
            "Predicted damage (no evaluation) against quality, all {plans} plans evaluated: "
            "Spearman {rho:.3f}.".format(**summary["prediction"])
        )
    if summary["proxy"] is not None:
        lines.append(
            "Quality against {metric} after fine-tuning, {plans} plans of all agents: "
            "Spearman {rho:.3f}.".format(metric=metric_of(about).label, **summary["proxy"])
        )
    if missing:
        lines.append(f"Missing ({len(missing)} cells): {', '.join(missing)}.")
    return "\n\n".join(lines)


def _shown(row: Mapping[str, Any], metric: Metric) -> tuple[str, ...]:
    unique = sorted(set(row["unique"]))
    return (
        row["label"],
        "-" if not unique else str(unique[0]) if len(unique) == 1 else f"{unique[0]}-{unique[-1]}",
        str(len(row["seeds"])),
        spread(row["quality"], lambda v: f"{v:.4f}"),
        spread(row["before"], metric.show),
        spread(row["after"], metric.show),
        spread(row["slack"], percent),
        spread(row["seconds"], lambda v: f"{v:.0f}"),
        spread(row["env_and_agent"], lambda v: f"{v:.1f}"),
    )


def _picture(place: Path, about: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> Path:
    """Median and range over seeds of the best feasible quality against unique evaluations."""
    made = figure(8.0, 4.6)
    axes = made.add_subplot()
    lowest = []
    for number, label in enumerate(dict.fromkeys(cell["label"] for cell in cells)):
        color = COLORS[number % len(COLORS)]
        own = [cell for cell in cells if cell["label"] == label and "error" not in cell]
        curves = _longest(own)
        if not curves:
            for cell in own[:1]:
                axes.axhline(cell["search_quality"], color=color, linestyle="--", label=label)
            continue
        low, middle, high = _bands(curves)
        lowest.append(middle[len(middle) // 20])
        at = range(1, len(middle) + 1)
        axes.step(at, middle, where="post", color=color, linewidth=1.6, label=label)
        axes.fill_between(at, low, high, step="post", color=color, alpha=0.15, linewidth=0)
    known = [value for value in lowest if value == value]
    if known:  # the first few plans would squeeze everything that follows
        top = axes.get_ylim()[1]
        axes.set_ylim(min(known) - 0.05 * (top - min(known)), top)
    axes.set_xlabel("unique evaluations")
    axes.set_ylabel(f"best feasible quality ({about['config']['evaluator']['quality']})")
    axes.set_title(about["name"], fontsize=10, loc="left")
    made.legend(fontsize=8, frameon=False, loc="outside right upper")
    return save(made, place / "search.png")


def _longest(cells: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """Curves of the cells with the most evaluations, where they have more than one point."""
    most = max((cell["evaluations"] for cell in cells), default=0)
    curves = [c["curve"] for c in cells if c["evaluations"] == most and len(c.get("curve", ())) > 1]
    return [[float("nan") if v is None else v for v in curve] for curve in curves]


def _bands(curves: Sequence[Sequence[float]]) -> tuple[list[float], list[float], list[float]]:
    length = max(len(curve) for curve in curves)
    columns = list(
        zip(*([*curve, *[curve[-1]] * (length - len(curve))] for curve in curves), strict=True)
    )
    return (
        [min(column) for column in columns],
        [statistics.median(column) for column in columns],
        [max(column) for column in columns],
    )


def _cells(place: Path) -> list[dict[str, Any]]:
    found = [read_json(path) for path in sorted((place / "cells").glob("*.json"))]
    order = {"uniform": 0}
    whole = [cell for cell in found if isinstance(cell, dict)]
    return sorted(
        whole, key=lambda c: (order.get(c["label"], 1), c["label"], c["evaluations"], c["seed"])
    )


def _missing(about: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> list[str]:
    done = {(cell["label"], cell["evaluations"], cell["seed"]) for cell in cells}
    return [
        f"{cell.label}/{cell.evaluations}/{cell.seed}"
        for cell in planned(about["bench"])
        if (cell.label, cell.evaluations, cell.seed) not in done
    ]


def _middle(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("-inf")
