"""``rlprune analyze``: what the neurons of a language model hold."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def analyze(arguments: Sequence[str]) -> None:
    """``rlprune analyze {redundancy,concepts,ffn,layers,all} MODEL SOURCES...``.

    Raises:
        RlpruneError: The model, the programs or the options cannot be used.
    """
    from rich.console import Console

    from rlprune.analysis.study import SECTIONS, Options, Study
    from rlprune.analysis.tokens import read_sources
    from rlprune.integrations import hf
    from rlprune.report import analysis as report

    defaults = Options()
    parser = argparse.ArgumentParser(
        prog="rlprune analyze",
        description="Show what the neurons of a causal language model hold on source code. "
        "Sections are kept in the output folder, and report.html shows all that are there.",
    )
    parser.add_argument("section", choices=(*SECTIONS, "all"))
    parser.add_argument("model", help="folder as on the Hugging Face hub, with a fast tokenizer")
    parser.add_argument("sources", nargs="+", type=Path, help="files or folders of source code")
    parser.add_argument("--out", type=Path, default=Path("outputs/analysis"))
    parser.add_argument("--tokens", type=int, default=defaults.tokens, help="sub-words to read")
    parser.add_argument("--each", type=int, default=defaults.each, help="of each program, at most")
    parser.add_argument("--length", type=int, default=defaults.length, help="of a window")
    parser.add_argument("--words", type=int, default=defaults.words, help="tokens to probe")
    parser.add_argument("--edit", type=float, default=defaults.edit, help="share of units edited")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--table", help=".jsonl or .csv with text and label: a task on whole texts")
    given = parser.parse_args(arguments)
    model, tokenizer = hf.load(given.model)
    options = Options(
        given.tokens, given.each, given.length, given.words, given.edit, given.seed, given.table
    )
    study = Study(
        model.float(), tokenizer, read_sources(given.sources), given.out, options,
        Path(given.model).name,
    )  # fmt: skip
    console = Console()
    for section in SECTIONS if given.section == "all" else (given.section,):
        _show(console, study.run(section))
    console.print(f"{report.write(given.out)}", soft_wrap=True)


def _show(console: Any, content: dict[str, Any]) -> None:
    shown = {"redundancy": _redundancy, "concepts": _concepts, "ffn": _ffn, "layers": _layers}
    console.print(f"[bold]{content['section']}[/bold]  {content['seconds']:.1f} s")
    for line in shown[content["section"]](content):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _redundancy(content: dict[str, Any]) -> list[str]:
    lines = []
    for task in content["tasks"]:
        verdict = "" if task["conclusive"] else "  inconclusive"
        blank = "" if task["untrained"] is None else f", untrained {task['untrained']:.3f}"
        lines.append(
            f"{task['task']}: oracle {task['oracle']:.3f} on {task['neurons']} neurons, majority "
            f"{task['majority']:.3f} (+- {task['error']:.3f}), n-grams {task['surface']:.3f}"
            f"{blank}, selectivity {task['selectivity']:.3f}{verdict}"
        )
        lines += [
            f"  lose {stage['delta']:.2f}  {stage['step']:8} {stage['neurons']:6} neurons "
            f"(-{1 - stage['share']:.2%})  test {stage['test']:.3f}  random {stage['random']:.3f}"
            f"  {stage['choice']}"
            for stage in task["stages"]
        ]
    return lines


def _concepts(content: dict[str, Any]) -> list[str]:
    def area(value: float | None) -> str:
        return "  -  " if value is None else f"{value:.3f}"

    return [
        f"  {row['name']:11} {row['kind']:8} {row['site']} {row['unit']}: AUC {area(row['auc'])}; "
        f"best n-gram {area(row['letter'])}, all n-grams {area(row['letters'])}, untrained "
        f"{area(row['untrained'])}, random labels {area(row['control'])}"
        for row in content["concepts"]
    ]


def _ffn(content: dict[str, Any]) -> list[str]:
    lines = [
        f"  {one['name']:14} held by {sum(map(len, one['holders']))} of {sum(content['units'])} "
        f"units; by layer {[len(units) for units in one['holders']]}"
        for one in content["maps"]
    ]
    lines += [
        f"  edit {row['concept']:11} {row['way']:20} {row['units']} units: concept NLL "
        f"{row['concept_before']:.3f} {row['concept_after'] - row['concept_before']:+.4f}, others "
        f"{row['others_after'] / row['others_before'] - 1:+.2%}"
        for row in content["edits"]
    ]
    return lines


def _layers(content: dict[str, Any]) -> list[str]:
    lines = [f"  agreement by layer {[round(share, 3) for share in content['share']]}"]
    lines.append(f"  rank correlation with depth {content['spearman']:.3f}")
    lines += [
        f"  {context} tokens seen: settled at layer {settled:.2f}"
        for context, settled in zip(content["contexts"], content["settled"], strict=True)
    ]
    return lines
