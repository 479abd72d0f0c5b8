"""``report.html``: one file that shows a run to somebody who was not there."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlprune.budgets import reported
from rlprune.report import figures, rows
from rlprune.report.units import duration, ratio

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}
body{color:#1c2733}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;margin:.5rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .9rem .25rem 0;text-align:left;border-bottom:1px solid #e3e7ec}
th{font-weight:600;color:#5a6878}td+td{white-space:nowrap}td.why{white-space:normal}
.tiles{display:flex;flex-wrap:wrap;gap:.8rem;margin:1rem 0}
.tile{background:#f3f6fa;border-radius:.5rem;padding:.6rem 1rem;min-width:8rem}
.tile b{display:block;font-size:1.35rem}.tile span{color:#5a6878;font-size:.85rem}
pre{background:#f3f6fa;padding:.8rem 1rem;border-radius:.5rem;overflow-x:auto}
img{max-width:100%}.muted{color:#5a6878}.bad{color:#b3261e;font-weight:600}
"""


def page(title: str, body: str) -> str:
    """A self-contained page."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """An HTML table; every cell is escaped."""
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = []
    for row in body:
        cells = (
            f"<td{' class=bad' if cell == 'BROKEN' else ''}>{html.escape(cell)}</td>"
            for cell in row
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def picture(figure: Any, text: str) -> str:
    """A figure inside the page."""
    return f'<img alt="{html.escape(text)}" src="{figures.encode(figure)}">'


def render(report: Mapping[str, Any], history: Sequence[Mapping[str, str]], folder: Path) -> str:
    """The page of one run.

    Args:
        report: Content of ``report.json``.
        history: Rows of ``history.csv``, as text.
        folder: The run folder, for the commands shown.

    Returns:
        HTML that needs no other file.
    """
    parts = [_head(report), _tiles(report), "<h2>Dense and pruned</h2>"]
    parts.append(
        table(
            ("", "dense", "before fine-tuning", "pruned", "against dense"), rows.comparison(report)
        )
    )
    latency = report["latency"]
    parts.append(
        f'<p class="muted">Latency: median of {latency["repeats"]} interleaved runs, batch '
        f"{latency['batch_size']}, {html.escape(str(latency['device']))}, "
        f"{latency['threads']} threads.</p><h2>Budgets</h2>"
    )
    parts.append(
        table(
            ("budget", "asked for", "dense", "limit", "value", "of the limit", ""),
            rows.budgets(report),
        )
    )
    parts.append("<h2>What was kept of each layer</h2>")
    parts.append(picture(figures.layers(report["groups"]), "kept and dense width of every group"))
    frozen = [
        (g["name"], str(g["dense"]), g["reason"]) for g in report["groups"] if not g["prunable"]
    ]
    if frozen:
        parts.append(f"<details><summary>{len(frozen)} groups were left whole</summary>")
        parts.append(table(("group", "units", "why"), frozen) + "</details>")
    parts.append("<h2>The search</h2>")
    parts.append(
        f"<p>{report['evaluations']} unique evaluations, {report['feasible']} of them within "
        f"every budget. Agent: {html.escape(_agent(report))}, seed {report['seed']}"
        f"{_start(report)}.</p>"
    )
    if history:
        parts.append(picture(figures.search(history), "quality and multipliers by evaluation"))
    parts.append(_gates(report))
    rows_of_training = report["finetune"]["history"]
    metric = rows.held_out(report)
    if rows_of_training and metric is not None:
        parts.append("<h2>Fine-tuning</h2>")
        drawn = figures.training(rows_of_training, metric, report["dense"].get(metric.name))
        parts.append(picture(drawn, f"{metric.label} by epoch"))
        parts.append(f"<p>The network of epoch {report['finetune']['best_epoch']} was kept.</p>")
    parts.append(_rounds(report))
    parts.append(_usage(report, folder))
    return page("rlprune report", "\n".join(parts))


def _head(report: Mapping[str, Any]) -> str:
    where = report["environment"]
    return (
        "<h1>rlprune report</h1>"
        f'<p class="muted">{duration(report["seconds"])} on {html.escape(str(where["device"]))}, '
        f"torch {html.escape(where['torch'])}, rlprune {html.escape(where['rlprune'])}</p>"
    )


def _tiles(report: Mapping[str, Any]) -> str:
    dense, pruned = report["dense"], report["pruned"]
    tiles = []
    for judged in rows.columns(report)[:1]:
        before, after = (judged.show(network[judged.name]) for network in (dense, pruned))
        tiles.append((after, f"{judged.label}, dense {before}"))
    for metric in reported():
        share = ratio(pruned[metric.field], dense[metric.field])
        tiles.append((share, f"of the {metric.title}"))
    cells = "".join(
        f'<div class="tile"><b>{html.escape(big)}</b><span>{html.escape(small)}</span></div>'
        for big, small in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _agent(report: Mapping[str, Any]) -> str:
    agent = report["agent"]
    return str(agent.get("name", agent)) if isinstance(agent, Mapping) else str(agent)


def _start(report: Mapping[str, Any]) -> str:
    """Where the agent's policy came from, if it was not a fresh one."""
    start = report.get("start")
    return f", going on from {html.escape(start)}" if start else ""


def _gates(report: Mapping[str, Any]) -> str:
    """What learnable gates did, where they were the agent."""
    snapshots = report.get("gates", [])
    if not snapshots:
        return ""
    text = "how far the gates of every layer and branch were open along their training"
    parts = ["<h2>The gates</h2>", picture(figures.gates(snapshots), text)]
    dropped = report.get("dropped", [])
    if snapshots[-1]["branches"]:
        names = html.escape(", ".join(dropped)) if dropped else "none"
        parts.append(f"<p>Branches dropped by the plan: {names}.</p>")
    weights = report.get("weights")
    if weights:
        taken = "learned" if weights["taken"] else "dense"
        parts.append(
            f"<p>Quality {weights['dense']:.4g} with the dense network's weights, "
            f"{weights['learned']:.4g} with those trained along: the {taken} ones were taken.</p>"
        )
    return "".join(parts)


def _rounds(report: Mapping[str, Any]) -> str:
    """The curve over the rounds of an iterative or gradual schedule."""
    found, metric = rows.rounds(report), rows.held_out(report)
    if not found or metric is None:
        return ""
    names = found[0]["shares"]
    drawn = figures.rounds(
        {name: [row["shares"][name] for row in found] for name in names},
        [row["before"] for row in found],
        [row["after"] for row in found],
        metric,
        report["dense"].get(metric.name),
    )
    body = [
        (
            str(number),
            *(f"{100 * share:.1f} %" for share in row["shares"].values()),
            metric.show(row["before"]),
            metric.show(row["after"]),
        )
        for number, row in enumerate(found, start=1)
    ]
    head = ("round", *names, "just pruned", "trained")
    text = f"what is left, and {metric.label}, by round"
    return f"<h2>Round by round</h2>{picture(drawn, text)}{table(head, body)}"


def _usage(report: Mapping[str, Any], folder: Path) -> str:
    lines = [
        "import rlprune",
        "",
        f"model = {rows.load_call(folder.as_posix(), report)}  # the pruned torch.nn.Module",
    ]
    for name, entry in report["exports"].items():
        if "file" not in entry:
            continue
        path = (folder / entry["file"]).as_posix()
        if name == "torch_export":
            lines += ["", "import torch  # rlprune is not needed", ""]
            lines.append(f'model = torch.export.load("{path}").module()')
        elif name != "onnx":
            lines += ["", f"# {name}: {entry.get('use', path)}"]
        else:
            lines += ["", f'session = onnxruntime.InferenceSession("{path}")']
    text = f"<h2>How to use it</h2><pre>{html.escape(chr(10).join(lines))}</pre>"
    text += "".join(f"<p>{html.escape(line)}</p>" for line in report.get("limits", []))
    for name, entry in report["exports"].items():
        if "error" in entry:
            text += f"<p>{html.escape(name)} was not written: {html.escape(entry['error'])}</p>"
    return text
