"""The page of a study: one offline file that shows what the neurons of a model hold."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlprune.report import figures
from rlprune.report.html import page, picture, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ORDER = ("redundancy", "concepts", "ffn", "layers")


def write(folder: str | Path) -> Path:
    """Gather the sections in a folder into ``report.html``.

    Args:
        folder: of a :class:`rlprune.analysis.study.Study`.

    Returns:
        The page's path.
    """
    folder = Path(folder)
    found = [
        json.loads(path.read_text())
        for name in _ORDER
        if (path := folder / f"{name}.json").is_file()
    ]
    target = folder / "report.html"
    target.write_text(render(found), encoding="utf-8")
    return target


def render(sections: Sequence[Mapping[str, Any]]) -> str:
    """HTML that needs no other file."""
    makers = {"redundancy": _redundancy, "concepts": _concepts, "ffn": _ffn, "layers": _layers}
    name = html.escape(str(sections[0]["model"])) if sections else "nothing"
    parts = [f"<h1>What the neurons of {name} hold</h1>"]
    for section in sections:
        options = section["options"]
        parts.append(
            f'<p class="muted">{section["section"]}: {section["seconds"]:.0f} s, '
            f"{section['programs']} programs ({', '.join(section['languages'])}), about "
            f"{options['tokens']} sub-words in windows of {options['length']}, seed "
            f"{options['seed']}.</p>"
        )
    for section in sections:
        parts += makers[section["section"]](section)
    return page(f"rlprune analyze: {name}", "\n".join(parts))


def _redundancy(section: Mapping[str, Any]) -> list[str]:
    parts = ["<h2>Redundancy: how many neurons a task needs</h2>"]
    parts.append(
        "<p>A probe on all neurons is the oracle. Layer, clusters and minimal set are chosen on "
        "held-out programs; scores are on test programs, read once.</p>"
    )
    for task in section["tasks"]:
        parts.append(f"<h3>{html.escape(task['task'])}</h3>")
        if not task["conclusive"]:
            parts.append(
                '<p class="bad">inconclusive: the oracle is less than two standard errors above '
                "the majority.</p>"
            )
        head = ("", "score")
        untrained = "" if task["untrained"] is None else _percent(task["untrained"])
        parts.append(
            table(
                head,
                [
                    ("oracle, all neurons", _percent(task["oracle"])),
                    ("majority", _percent(task["majority"])),
                    ("standard error of the difference", _percent(task["error"])),
                    ("character n-grams", _percent(task["surface"])),
                    ("untrained network", untrained),
                    ("random labels (control task)", _percent(task["control"])),
                    ("selectivity", _percent(task["selectivity"])),
                ],
            )
        )
        rows = [
            (
                f"{100 * stage['delta']:g}%", stage["step"], stage["choice"],
                str(stage["neurons"]), f"{100 * (1 - stage['share']):.2f}%",
                _percent(stage["held"]), _percent(stage["test"]), _percent(stage["random"]),
            )
            for stage in task["stages"]
        ]  # fmt: skip
        parts.append(
            table(
                ("may lose", "step", "chosen", "neurons", "removed", "held out", "test",
                 "as many at random"),
                rows,
            )
        )  # fmt: skip
        parts.append(picture(_curves(task), "scores by layer and under ablation"))
        parts.append(_class_sets(task.get("sets", {})))
    return parts


def _class_sets(sets: Mapping[str, Any]) -> str:
    """By class its neurons, and those of them that no other class has."""
    if not sets:
        return ""
    units = {name: [unit for _, unit, _ in own] for name, own in sets.items()}
    rows = []
    for name, own in sets.items():
        others = {unit for other, found in units.items() if other != name for unit in found}
        alone = [unit for unit in units[name] if unit not in others]
        heaviest = ", ".join(f"{unit} ({weight:+.2f})" for _, unit, weight in own[:8])
        rows.append((name or "none", str(len(own)), str(len(alone)), heaviest))
    site = next((own[0][0] for own in sets.values() if own), "")
    head = ("class", "neurons", "its alone", "heaviest, with their weights")
    return (
        f"<p>What tells each class in the minimal set at {html.escape(site)}: the neurons that "
        f"hold half of the weight of its row in the probe.</p>{table(head, rows)}"
    )


def _concepts(section: Mapping[str, Any]) -> list[str]:
    parts = ["<h2>Concepts: what single neurons tell</h2>"]
    parts.append(
        "<p>Area under the ROC curve on test programs, over tokens whose text occurs in no "
        "training program. Roles are told from other tokens of the same class.</p>"
    )
    rows = [
        (
            row["name"], row["kind"], f"{row['site']} {row['unit']}",
            _area(row["auc"]), _area(row["letter"]), _area(row["letters"]),
            _area(row["untrained"]), _area(row["control"]), str(row["count"]),
            f"{row['positives']}/{row['negatives']}",
            ", ".join(text for text, _ in row["words"][:4]),
        )
        for row in section["concepts"]
    ]  # fmt: skip
    head = ("concept", "site", "neuron", "AUC", "best n-gram", "all n-grams", "untrained",
            "random labels", "neurons at .8", "tokens", "highest on")  # fmt: skip
    parts.append(table(head, rows))
    return parts


def _ffn(section: Mapping[str, Any]) -> list[str]:
    parts = ["<h2>Feed-forward layers as memories</h2>"]
    parts.append(picture(_maps(section), "units that hold each concept, by layer"))
    rows: list[tuple[str, ...]]
    if section["votes"]:
        rows = [
            (path, _percent(real), _percent(chance))
            for path, (real, chance) in zip(section["layers"], section["votes"], strict=True)
        ]
        parts.append("<h3>Does a value vote for what follows its key's first window?</h3>")
        parts.append(table(("layer", "units", "windows exchanged"), rows))
    if section["overlaps"]:
        rows = [
            (row["one"], row["other"], str(row["shared"]), f"{row['chance']:.1f}")
            for row in section["overlaps"]
        ]
        parts.append("<h3>Units that hold two concepts</h3>")
        parts.append(table(("one", "other", "units", "by chance"), rows))
    parts.append("<h3>Edits: memories of a concept taken out, on programs not chosen by</h3>")
    rows = [
        (
            row["concept"], row["way"], str(row["units"]),
            f"{row['concept_before']:.3f}",
            f"{row['concept_after'] - row['concept_before']:+.4f}",
            f"{100 * (row['others_after'] / row['others_before'] - 1):+.2f}%",
        )
        for row in section["edits"]
    ]  # fmt: skip
    head = ("concept", "keys", "units", "its NLL", "rise", "NLL of other tokens")
    parts.append(table(head, rows))
    parts.append("<h3>Top windows</h3>")
    for example in section["examples"]:
        parts.append(
            f"<p><b>{html.escape(example['concept'])}</b>: {html.escape(example['layer'])}, unit "
            f"{example['unit']}; {_percent(example['share'])} of its top windows; its value votes "
            f"for {html.escape(' '.join(map(repr, example['votes'])))}</p>"
        )
        lines = [
            f"{html.escape(a[-36:])}<b>{html.escape(b)}</b>{html.escape(c)}".replace("\n", "⏎")
            for a, b, c in example["windows"]
        ]
        parts.append(f"<pre>{chr(10).join(lines)}</pre>")
    return parts


def _layers(section: Mapping[str, Any]) -> list[str]:
    parts = ["<h2>When the answer is there</h2>"]
    parts.append(
        "<p>Share of tokens on which a layer's own answer is already the final one; rank "
        f"correlation with depth {section['spearman']:.2f}.</p>"
    )
    parts.append(picture(_agreement(section), "agreement with the final answer by layer"))
    rows = [
        (str(context), f"{settled:.2f}")
        for context, settled in zip(section["contexts"], section["settled"], strict=True)
    ]
    if rows:
        parts.append(
            f"<p>The same {section['positions']} positions answered from their last few tokens:</p>"
        )
        parts.append(table(("tokens seen", "mean layer from which the answer stays"), rows))
    return parts


def _curves(task: Mapping[str, Any]) -> Figure:
    figure = figures._figure(9.0, 3.0)
    left, right = figure.subplots(1, 2)
    scores = [100 * score for score in task["by_layer"].values()]
    left.plot(range(1, len(scores) + 1), scores, marker="o", markersize=3, color=figures.KEPT)
    for key, style in (("oracle", "-"), ("majority", ":"), ("surface", "--")):
        left.axhline(100 * task[key], color=figures.LINE, linestyle=style, linewidth=1, label=key)
    left.set_xlabel("layer")
    left.set_ylabel("score, %")
    left.legend(fontsize=7, frameon=False)
    shares = [100 * share for share, _, _ in task["ablation"]]
    for column, label, color in ((1, "heaviest", figures.KEPT), (2, "lightest", figures.BAD)):
        values = [100 * row[column] for row in task["ablation"]]
        right.plot(shares, values, marker="o", markersize=3, color=color, label=label)
    right.set_xscale("symlog", linthresh=0.1)
    right.set_xlabel("neurons kept, %")
    right.legend(fontsize=7, frameon=False)
    return figure


def _maps(section: Mapping[str, Any]) -> Figure:
    maps = [one for one in section["maps"] if any(one["holders"])]
    figure = figures._figure(9.0, 0.32 * max(len(maps), 1) + 1.2)
    axes = figure.add_subplot()
    shares = [
        [100 * len(units) / count for units, count in zip(one["holders"], section["units"],
                                                           strict=True)]
        for one in maps
    ] or [[0.0]]  # fmt: skip
    image = axes.imshow(shares, aspect="auto", cmap="Blues", vmin=0)
    axes.set_yticks(range(len(maps)), [one["name"] for one in maps], fontsize=7)
    axes.set_xticks(range(len(shares[0])), [str(i + 1) for i in range(len(shares[0]))],
                    fontsize=7)  # fmt: skip
    axes.set_xlabel("layer")
    figure.colorbar(image, label="units that hold it, %")
    return figure


def _agreement(section: Mapping[str, Any]) -> Figure:
    figure = figures._figure(9.0, 3.0)
    axes = figure.add_subplot()
    depth = range(1, len(section["share"]) + 1)
    axes.plot(depth, [100 * s for s in section["share"]], color=figures.LINE, label="all tokens")
    for context, shares in zip(section["contexts"], section["by_context"], strict=True):
        axes.plot(depth, [100 * s for s in shares], linewidth=1, label=f"{context} tokens seen")
    axes.set_xlabel("layer")
    axes.set_ylabel("agreement, %")
    axes.legend(fontsize=7, frameon=False)
    return figure


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}%"


def _area(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
