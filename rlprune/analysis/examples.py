"""Labelled items out of recordings: tokens of programs, or whole texts."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlprune.analysis.recording import Recording
from rlprune.analysis.redundancy import Labelling
from rlprune.analysis.tokens import Words
from rlprune.batches import Batch
from rlprune.errors import DataError


def sample(words: Words, most: int, seed: int = 0) -> Words:
    """At most so many of the words, drawn at random, in order."""
    if len(words) <= most:
        return words
    drawn = np.random.default_rng(seed).choice(len(words), most, replace=False)
    return words[np.sort(drawn)]


def word_task(
    recording: Recording, words: Words, by: str, untrained: Recording | None = None
) -> Labelling:
    """Tell the class of every token, or the role of those that have one.

    Args:
        recording: of the corpus that the words come from.
        words: which tokens.
        by: "kind" or "role".
        untrained: the same of the network before training, for the control.
    """
    chosen = words[words.role != ""] if by == "role" else words
    labels = chosen.role if by == "role" else chosen.kind
    return Labelling(
        "token roles" if by == "role" else "token classes",
        {site: recording[site].take(chosen.rows) for site in recording.sites},
        labels.astype(str),
        chosen.text,
        chosen.source,
        None if untrained is None
        else {site: untrained[site].take(chosen.rows) for site in untrained.sites},
    )  # fmt: skip


def read_table(path: str | Path) -> tuple[list[str], np.ndarray]:
    """Texts and labels of a sentence-level task.

    Args:
        path: ``.jsonl`` or ``.csv`` with the columns ``text`` (or ``code``, ``func``; two texts
            that belong together as ``text1`` and ``text2``) and ``label`` (or ``target``).

    Raises:
        DataError: It cannot be read or lacks a column.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; give a .jsonl or .csv file")
    with path.open(encoding="utf-8", newline="") as lines:
        rows: list[dict[str, Any]] = (
            [json.loads(line) for line in lines if line.strip()]
            if path.suffix == ".jsonl"
            else list(csv.DictReader(lines))
        )
    texts, labels = [], []
    for number, row in enumerate(rows, start=1):
        text = next((row[key] for key in ("text", "code", "func") if key in row), None)
        if text is None and "text1" in row and "text2" in row:
            text = f"{row['text1']}\n\n{row['text2']}"
        label = next((row[key] for key in ("label", "target") if key in row), None)
        if text is None or label is None:
            raise DataError(f"{path}, row {number}: no text and label but {', '.join(row)}")
        texts.append(str(text))
        labels.append(str(label))
    if not texts:
        raise DataError(f"{path} holds no row")
    return texts, np.array(labels)


def text_batches(
    texts: Sequence[str], tokenizer: Any, *, length: int = 256, batch_size: int = 8
) -> list[Batch]:
    """Whole texts as batches, one row each, cut off after ``length`` sub-words."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    found: list[Batch] = []
    for start in range(0, len(texts), batch_size):
        part = list(texts[start : start + batch_size])
        coded = tokenizer(
            part, truncation=True, max_length=length, padding=True, return_tensors="pt"
        )
        kept = {key: coded[key] for key in ("input_ids", "attention_mask")}
        found.append((kept, None))
    return found


def text_task(
    name: str,
    recording: Recording,
    texts: Sequence[str],
    labels: np.ndarray,
    untrained: Recording | None = None,
    groups: np.ndarray | None = None,
) -> Labelling:
    """Tell the label of a whole text from the mean over its tokens.

    Args:
        name: for people.
        recording: of :func:`text_batches`.
        texts: the texts.
        labels: ``[texts]``.
        untrained: the same of the network before training, for the control.
        groups: texts that must not be split; each alone where None.
    """
    alone = np.arange(len(texts)) if groups is None else groups
    return Labelling(
        name, text_means(recording, len(texts)), labels, np.array(list(texts), dtype=object), alone,
        None if untrained is None else text_means(untrained, len(texts)),
    )  # fmt: skip


def text_means(recording: Recording, count: int) -> dict[str, np.ndarray]:
    """Mean over the tokens of every text by site, ``[texts, neurons]``."""
    sample = recording.places()[:, 0]
    sizes = np.bincount(sample, minlength=count)
    if len(sizes) != count or not sizes.all():
        raise DataError(f"{count} texts but tokens of {int((sizes > 0).sum())} were recorded")
    found = {}
    for site, width in zip(recording.sites, recording.widths, strict=True):
        sums, done = np.zeros((count, width)), 0
        for piece in recording[site].chunks():
            own = sample[done : done + len(piece)]
            done += len(piece)
            np.add.at(sums, own, piece)
        found[site] = (sums / sizes[:, None]).astype(np.float32)
    return found
