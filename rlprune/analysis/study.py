"""A study of one model on some programs: every section is computed once and kept as JSON."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import shutil
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rlprune.analysis.concepts import concepts
from rlprune.analysis.controls import untrained
from rlprune.analysis.editing import (
    Edit,
    choose,
    draw,
    edited,
    effects,
    token_losses,
)
from rlprune.analysis.examples import read_table, sample, text_batches, text_task, word_task
from rlprune.analysis.lens import layer_agreement
from rlprune.analysis.memories import (
    agreement,
    concept_map,
    concept_rows,
    contexts,
    overlap,
    predictions,
    words_of,
)
from rlprune.analysis.recording import Recording, record
from rlprune.analysis.redundancy import redundancy
from rlprune.analysis.tokens import Corpus, Source, Words, read
from rlprune.analysis.windows import TopWindows, top_windows
from rlprune.errors import ConfigError, StructureError
from rlprune.files import write_atomically
from rlprune.identity import digest

logger = logging.getLogger(__name__)

SECTIONS = ("redundancy", "concepts", "ffn", "layers")
"""What a study holds, in the order it is shown."""
PATTERNS = (r"/\bself\./", r"/\breturn \w*/")
"""Regular expressions that are looked for among the memories besides classes and roles."""
EDITED = ("NUMBER", "STRING", "COMMENT", "call", "parameter", "definition")
"""Concepts whose memories are taken out, where they occur."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How much a study looks at.

    Attributes:
        tokens: sub-words of the programs that are read.
        each: of each program, at most.
        length: of a window.
        words: tokens that probes and concepts work on.
        edit: share of the feed-forward units that an edit takes out.
        seed: of splits, draws and the untrained network.
        table: file of a sentence-level task (see :func:`rlprune.analysis.examples.read_table`).
    """

    tokens: int = 60_000
    each: int = 1500
    length: int = 256
    words: int = 8000
    edit: float = 0.01
    seed: int = 0
    table: str | None = None


class Study:
    """A language model, its tokenizer and programs.

    Args:
        model: a causal language model; not changed.
        tokenizer: its fast tokenizer.
        sources: programs, at least five.
        folder: sections and recordings are kept here.
        options: how much is looked at.
        name: of the model, for people.

    Raises:
        ConfigError: There are fewer than five programs.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        sources: list[Source],
        folder: str | Path,
        options: Options | None = None,
        name: str = "",
    ) -> None:
        if len(sources) < 5:
            raise ConfigError(f"{len(sources)} programs; a study needs at least five")
        self.model, self.tokenizer = model, tokenizer
        self.folder, self.options = Path(folder), options or Options()
        self.name = name or type(model).__name__
        order = np.random.default_rng(self.options.seed).permutation(len(sources))
        self._sources = [sources[i] for i in order]

    @cached_property
    def corpus(self) -> Corpus:
        """Four fifths of what is read."""
        return self._read(self._sources[len(self._sources) // 5 :], 0.8)

    @cached_property
    def other(self) -> Corpus:
        """Programs that nothing is chosen by."""
        return self._read(self._sources[: len(self._sources) // 5], 0.2)

    @cached_property
    def words(self) -> Words:
        """The tokens that probes and concepts work on."""
        return sample(self.corpus.words(), self.options.words, self.options.seed)

    @cached_property
    def identity(self) -> str:
        """Digest of the network, the programs and the options."""
        state = dict(self.model.state_dict())
        return digest(["study 2", state, list(self._sources), dataclasses.asdict(self.options)])

    def run(self, section: str) -> dict[str, Any]:
        """Compute a section, or take it from the folder where it is of the same identity.

        Args:
            section: one of :data:`SECTIONS`.

        Raises:
            ConfigError: There is no such section.
        """
        makers: dict[str, Callable[[], dict[str, Any]]] = {
            "redundancy": self._redundancy,
            "concepts": self._concepts,
            "ffn": self._ffn,
            "layers": self._layers,
        }
        if section not in makers:
            raise ConfigError(f"section {section!r} is unknown; choose {', '.join(SECTIONS)}")
        path = self.folder / f"{section}.json"
        if path.is_file():
            known = json.loads(path.read_text())
            if known.get("identity") == self.identity:
                return dict(known)
        started = time.perf_counter()
        content = makers[section]()
        content = {
            "section": section,
            "identity": self.identity,
            "model": self.name,
            "seconds": time.perf_counter() - started,
            "options": dataclasses.asdict(self.options),
            "programs": len(self._sources),
            "languages": sorted({source.language for source in self._sources}),
            **content,
        }
        text = json.dumps(_plain(content), indent=1, allow_nan=False)
        write_atomically(path, lambda target: target.write_text(text))
        return dict(json.loads(text))

    def _read(self, sources: list[Source], share: float) -> Corpus:
        options = self.options
        return read(
            sources, self.tokenizer, length=options.length, each=options.each,
            most=max(1, round(share * options.tokens)),
        )  # fmt: skip

    @cached_property
    def _blank(self) -> nn.Module:
        return untrained(self.model, self.options.seed)

    def _recorded(self, model: nn.Module, batches: Any, kind: str, name: str) -> Recording:
        folder = self.folder / "recordings" / name
        try:
            return record(model, batches, kind, folder)
        except ConfigError:
            shutil.rmtree(folder)  # of another network or other programs: ours alone
            return record(model, batches, kind, folder)

    def _pair(self, kind: str) -> tuple[Recording, Recording]:
        batches = self.corpus.batches
        return (
            self._recorded(self.model, batches, kind, kind),
            self._recorded(self._blank, batches, kind, f"{kind}-untrained"),
        )

    def _redundancy(self) -> dict[str, Any]:
        own, blank = self._pair("residual")
        tasks = [word_task(own, self.words, by, blank) for by in ("kind", "role")]
        if self.options.table:
            texts, labels = read_table(self.options.table)
            batches = text_batches(texts, self.tokenizer, length=self.options.length)
            pair = (
                self._recorded(self.model, batches, "residual", "table"),
                self._recorded(self._blank, batches, "residual", "table-untrained"),
            )
            name = Path(self.options.table).stem
            tasks.append(text_task(name, pair[0], texts, labels, pair[1]))
        found = [redundancy(task, seed=self.options.seed) for task in tasks]
        return {
            "tasks": [
                dataclasses.asdict(one)
                | {"selectivity": one.selectivity, "conclusive": one.conclusive}
                for one in found
            ]
        }

    def _concepts(self) -> dict[str, Any]:
        rows = []
        for kind in ("residual", "ffn"):
            own, blank = self._pair(kind)
            words = self.corpus.words()
            found = concepts(own, words, untrained=blank, seed=self.options.seed)
            rows += [
                dataclasses.asdict(one) | {"kind": kind, "selectivity": one.selectivity}
                for one in found
            ]
        return {"concepts": rows}

    def _ffn(self) -> dict[str, Any]:
        corpus = self.corpus
        top = top_windows(self.model, corpus.batches)
        self._keep(top)
        wanted = {}
        for name in (*_names(corpus), *PATTERNS):
            try:
                wanted[name] = concept_rows(corpus, name)
            except ConfigError:
                continue
        context = contexts(corpus)
        maps = {name: concept_map(top, name, rows, context) for name, rows in wanted.items()}
        pairs: list[dict[str, Any]] = []
        for a, b in ((a, b) for a in maps for b in maps if a < b):
            shared, chance = overlap(maps[a], maps[b], top)
            if chance >= 1 or shared:
                pairs.append({"one": a, "other": b, "shared": shared, "chance": chance})
        try:
            votes = agreement(self.model, top, corpus)
        except StructureError as error:
            logger.info("values are not read as votes: %s", error)
            votes = []
        return {
            "layers": [layer.path for layer in top.layers],
            "units": [at.shape[-2] for at in top.rows],
            "maps": [dataclasses.asdict(one) for one in maps.values()],
            "overlaps": sorted(pairs, key=lambda pair: -pair["shared"])[:15],
            "votes": votes,
            "examples": self._examples(top, maps, wanted),
            "edits": self._edits(),
        }

    def _keep(self, top: TopWindows) -> None:
        from safetensors.torch import save_file

        tensors = {}
        for layer, at, values in zip(top.layers, top.rows, top.values, strict=True):
            tensors[f"{layer.path}.rows"] = at.contiguous()
            tensors[f"{layer.path}.values"] = values.contiguous()
        write_atomically(
            self.folder / "top_windows.safetensors",
            lambda path: save_file(tensors, path, {"identity": self.identity}),
        )

    def _examples(
        self, top: TopWindows, maps: dict[str, Any], wanted: dict[str, np.ndarray]
    ) -> list[dict[str, Any]]:
        found = []
        for name, one in maps.items():
            best: tuple[float, int, int] | None = None
            for number, (units, at) in enumerate(zip(one.holders, top.rows, strict=True)):
                plane = at if at.ndim == 2 else at[0]
                for unit in units:
                    share = float(wanted[name][plane[unit].numpy()].mean())
                    if best is None or share > best[0]:
                        best = (share, number, unit)
            if best is None:
                continue
            share, number, unit = best
            at = top.rows[number]
            rows = (at if at.ndim == 2 else at[0])[unit].tolist()
            try:
                ids = predictions(self.model, top.layers[number].down, 5)[0][unit]
                votes = words_of(self.tokenizer, ids)
            except StructureError:
                votes = []
            windows = list(dict.fromkeys(self.corpus.window(row, 36, 12) for row in rows))[:6]
            found.append(
                {
                    "concept": name, "layer": top.layers[number].path, "unit": unit,
                    "share": share, "windows": windows, "votes": votes,
                }
            )  # fmt: skip
        return found

    def _edits(self) -> list[dict[str, Any]]:
        rows = []
        test = self.other
        before = token_losses(self.model, test.batches)
        for name in EDITED:
            try:
                chosen_by, judged = concept_rows(self.corpus, name), concept_rows(test, name)
            except ConfigError:
                continue
            concept, others, moments = effects(self.model, self.corpus.batches, chosen_by)
            edit = choose(concept, others, self.options.edit, caution=4.0)
            ways: list[tuple[str, Edit]] = [
                ("zeroed", edit),
                ("where mu +- 2 sigma", edit.within(moments, 2.0)),
            ]
            ways += [("random", draw(concept, edit.count, seed)) for seed in range(3)]
            told = ~torch.isnan(before)
            mask = torch.from_numpy(judged)
            for way, one in ways:
                with edited(self.model, one):
                    after = token_losses(self.model, test.batches)
                parts = [mask & told, ~mask & told]
                old, new = (
                    [float(loss[part].mean()) for part in parts] for loss in (before, after)
                )
                rows.append(
                    {
                        "concept": name, "way": way, "units": one.count,
                        "tokens": int(parts[0].sum()), "concept_before": old[0],
                        "concept_after": new[0], "others_before": old[1], "others_after": new[1],
                    }
                )  # fmt: skip
        return rows

    def _layers(self) -> dict[str, Any]:
        return dataclasses.asdict(
            layer_agreement(self.model, self.corpus.batches, seed=self.options.seed)
        )


def _names(corpus: Corpus) -> list[str]:
    found = {name for labels in corpus.labels for label in labels for name in label[2:]}
    return sorted(found - {""})


def _plain(value: Any) -> Any:
    """Numbers, text, lists and mappings that JSON can hold; what is no number becomes None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


__all__ = ["SECTIONS", "Options", "Study"]
