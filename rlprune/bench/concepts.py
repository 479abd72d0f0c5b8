"""``rlprune bench concepts``: what pruning a code model costs it, on all tokens and on concepts.

The same share of every layer's feed-forward units is removed, in the order of several criteria,
with and without merging them into those that stay, and the loss is measured on other programs. One
split of the programs for every seed; every figure is a small JSON file, computed once.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

import rlprune
from rlprune.analysis import concept_rows, labelled, protective, read, read_sources, token_losses
from rlprune.compaction import build
from rlprune.compensation import compensate
from rlprune.errors import DataError
from rlprune.files import read_json, write_json, write_text
from rlprune.identity import digest
from rlprune.importance import scores
from rlprune.inputs import map_tensors
from rlprune.plan import Plan
from rlprune.progress import track
from rlprune.report import markdown
from rlprune.tasks import LanguageModeling

logger = logging.getLogger(__name__)

ALL = "all"
PROTECTED = "protected"


class Study:
    """One split of the programs: those that units are scored on, and those losses are read on.

    Args:
        given: The command's options.
        seed: Of the split.
    """

    def __init__(self, given: argparse.Namespace, seed: int) -> None:
        self.given, self.seed = given, seed
        self.model, tokenizer = rlprune.hf.load(given.model)
        self.model = self.model.float().eval()
        sources = read_sources(given.sources)
        order = np.random.default_rng(seed).permutation(len(sources))
        half = len(order) // 2
        if half < 1:
            raise DataError("the losses of a pruned model need programs of their own: give two")
        parts = [[sources[at] for at in some] for some in (order[:half], order[half:])]
        options = {"length": given.length, "each": given.each, "most": given.tokens}
        self.scored, self.test = (read(part, tokenizer, **options) for part in parts)
        example = map_tensors(self.scored.batches[0][0], lambda tensor: tensor[:2, :32])
        self.groups = rlprune.discover(self.model, example, exclude=tuple(given.exclude))
        self.rows = {ALL: np.ones(len(self.test.ids), dtype=bool)}
        self.rows |= {name: concept_rows(self.test, name) for name in given.concepts}
        self._scores: dict[str, Any] = {}
        self._identity = digest([self.model, self.scored.ids, self.test.ids, given.exclude])

    def losses(self, criterion: str | None, merged: bool, share: float) -> dict[str, float]:
        """Nats per token on all tokens and on every concept's; of the dense model for None."""
        asked = [self._identity, criterion, merged, share, self.given.concepts]
        path = Path(self.given.out) / "cells" / f"{digest(asked)[:16]}.json"
        known = read_json(path)
        if known is not None:
            return dict(known["losses"])
        network: Any = self.model
        if criterion is not None:
            plan = Plan.uniform(self.groups, 1 - share, self._order(criterion))
            network = build(self.groups, plan).eval()
            if merged:
                compensate(self.groups, plan, network, "cluster", labelled(self.scored))
        own = token_losses(network, self.test.batches)
        counted = ~torch.isnan(own)
        found = {
            name: float(own[counted & torch.from_numpy(rows)].mean())
            for name, rows in self.rows.items()
        }
        told = {"seed": self.seed, "criterion": criterion, "merged": merged, "share": share}
        write_json(path, {**told, "losses": found})
        logger.info("%s: %s", told, {name: round(value, 3) for name, value in found.items()})
        return found

    def _order(self, criterion: str) -> Any:
        if criterion not in self._scores:
            if criterion == PROTECTED:
                found = protective(self.groups, self.scored, self.given.concepts)
            else:
                task = LanguageModeling()
                found = scores(self.groups, criterion, data=labelled(self.scored), task=task)
            self._scores[criterion] = found
        return self._scores[criterion]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the missing figures, write and print the table."""
    parser = argparse.ArgumentParser("rlprune bench concepts", description=__doc__)
    parser.add_argument("model", help="folder as on the Hugging Face hub, with a fast tokenizer")
    parser.add_argument("sources", nargs="+", type=Path, help="files or folders of source code")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/concepts"))
    parser.add_argument("--criteria", nargs="+", default=["l1", "taylor", "redundancy", PROTECTED])
    parser.add_argument("--concepts", nargs="+", default=["NUMBER", "STRING", "call", "parameter"])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.3, 0.5, 0.7])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--exclude", nargs="*", default=["*attn*"])
    parser.add_argument("--tokens", type=int, default=30_000, help="sub-words of either part")
    parser.add_argument("--each", type=int, default=1_000, help="of each program, at most")
    parser.add_argument("--length", type=int, default=256, help="of a window")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    found: dict[tuple[Any, ...], list[dict[str, float]]] = {}
    for seed in track(given.seeds, "splits"):
        study = Study(given, seed)
        keys = [(None, False, 0.0)]
        keys += [(c, m, s) for s in given.shares for c in given.criteria for m in (False, True)]
        for key in keys:
            found.setdefault(key, []).append(study.losses(*key))
    text = _table(given, found)
    write_text(given.out / "concepts.md", text)
    sys.stdout.write(f"{text}\n{given.out / 'concepts.md'}\n")


def _table(given: argparse.Namespace, found: dict[tuple[Any, ...], list[dict[str, float]]]) -> str:
    """Mean rise of the loss over the dense model's, with the smallest and largest of the seeds."""
    dense = found[None, False, 0.0]
    names = (ALL, *given.concepts)
    rows = []
    for (criterion, merged, share), losses in found.items():
        if criterion is None:
            first = "dense, nats"
            columns = [[own[name] for own in losses] for name in names]
        else:
            first = f"{100 * share:g} % of the units, {criterion}{', merged' if merged else ''}"
            pairs = list(zip(losses, dense, strict=True))
            columns = [[own[name] - whole[name] for own, whole in pairs] for name in names]
        rows.append((first, *(f"{mean(c):.3f} ({min(c):.3f} to {max(c):.3f})" for c in columns)))
    title = f"## {Path(given.model).name}: rise of the loss, {len(given.seeds)} splits\n\n"
    return title + markdown.table(("", *names), rows) + "\n"
