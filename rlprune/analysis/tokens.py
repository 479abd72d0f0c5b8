"""Source code as batches of a language model, every sub-word with the token it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlprune.analysis.labels import LANGUAGES, Label, token_labels
from rlprune.batches import Batch
from rlprune.errors import DataError
from rlprune.progress import track

SUFFIXES = {".py": "python", ".java": "java", ".go": "go", ".js": "javascript"}
"""Languages by the suffix of a file."""


@dataclass(frozen=True)
class Source:
    """One program.

    Attributes:
        text: its source code.
        language: one of :data:`rlprune.analysis.LANGUAGES`.
        name: for people, such as a file's name.
    """

    text: str
    language: str
    name: str = ""


@dataclass(frozen=True)
class Words:
    """Tokens of the programs, each with the row of a recording that stands for it.

    Attributes:
        rows: row of its last sub-word, ``[words]``.
        first: row of its first sub-word, ``[words]``.
        text: the token, ``[words]``.
        kind: its class, ``[words]``.
        role: its role, ``""`` where it has none, ``[words]``.
        source: number of the program it stands in, ``[words]``.
    """

    rows: np.ndarray
    first: np.ndarray
    text: np.ndarray
    kind: np.ndarray
    role: np.ndarray
    source: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: Any) -> Words:
        """Some of the words: positions, a mask or a slice."""
        columns = (self.rows, self.first, self.text, self.kind, self.role, self.source)
        return Words(*(column[at] for column in columns))


@dataclass(frozen=True)
class Corpus:
    """Programs cut into windows of sub-words.

    Rows are the sub-words that are no padding, in the order of a recording of :attr:`batches`.

    Attributes:
        batches: ``({"input_ids", "attention_mask"}, None)``, ``[batch, length]`` each.
        sources: the programs.
        ids: token id of every row.
        source: number of the program of every row.
        span: first and last character (exclusive) of every row in its program, ``[rows, 2]``.
        label: number of the label that every row belongs to, in ``labels[source]``; -1 for blanks
            and special tokens.
        labels: class and role of the tokens of every program.
    """

    batches: list[Batch]
    sources: tuple[Source, ...]
    ids: np.ndarray
    source: np.ndarray
    span: np.ndarray
    label: np.ndarray
    labels: tuple[tuple[Label, ...], ...]

    def words(self) -> Words:
        """Every token of the programs that was read, by the last of its sub-words."""
        ends = np.ones(len(self.label), dtype=bool)
        ends[:-1] = (self.label[1:] != self.label[:-1]) | (self.source[1:] != self.source[:-1])
        rows = np.flatnonzero(ends & (self.label >= 0))
        begins = np.append(True, ends[:-1])
        source = self.source[rows].tolist()
        found = [self.labels[s][i] for s, i in zip(source, self.label[rows], strict=True)]
        spans = zip(source, found, strict=True)
        text = [self.sources[s].text[start:end] for s, (start, end, _, _) in spans]
        return Words(
            rows,
            np.flatnonzero(begins & (self.label >= 0)),
            np.array(text, dtype=object),
            np.array([label[2] for label in found], dtype=object),
            np.array([label[3] for label in found], dtype=object),
            self.source[rows],
        )

    def window(self, row: int, before: int = 40, after: int = 10) -> tuple[str, str, str]:
        """The text before a row, its own, and the text behind it, in characters."""
        text = self.sources[self.source[row]].text
        start, end = (int(place) for place in self.span[row])
        return text[max(0, start - before) : start], text[start:end], text[end : end + after]


def read_sources(paths: Sequence[str | Path], limit: int = 200_000) -> list[Source]:
    """Programs from files and folders; suffixes other than those of :data:`SUFFIXES` are left out.

    Args:
        paths: files, or folders that are searched through.
        limit: files longer than this (bytes) are left out, for tables are no programs.

    Raises:
        DataError: A path does not exist, or there is no program.
    """
    found: list[Source] = []
    for path in map(Path, paths):
        if not path.exists():
            raise DataError(f"{path} does not exist; give files or folders of source code")
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            language = SUFFIXES.get(file.suffix)
            if language and file.is_file() and 0 < file.stat().st_size <= limit:
                text = file.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
                found.append(Source(text, language, file.name))
    if not found:
        raise DataError(
            f"no program among {', '.join(map(str, paths))}; files end in {', '.join(SUFFIXES)}"
        )
    return found


def read(
    sources: Sequence[Source],
    tokenizer: Any,
    *,
    length: int = 256,
    batch_size: int = 8,
    padding_side: str = "right",
    most: int | None = None,
    each: int | None = None,
    roles: bool = True,
) -> Corpus:
    """Cut programs into windows and align their sub-words with the programs' tokens.

    A sub-word belongs to the token in which its first character that is no blank lies; one of
    blanks to the token, such as a string, that they are part of. Programs that cannot be read are
    left out.

    Args:
        sources: the programs.
        tokenizer: a fast tokenizer of transformers; its offsets are in characters.
        length: sub-words of a window; a program's last window may be shorter.
        batch_size: windows of a batch.
        padding_side: "right" or "left".
        most: stop after this many sub-words; None reads all.
        each: sub-words from the start of each program; None reads all.
        roles: whether roles are read too (see :func:`rlprune.analysis.token_labels`).

    Raises:
        DataError: No program could be read, or the tokenizer tells no offsets.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise DataError(f"{type(tokenizer).__name__} tells no offsets; give a fast tokenizer")
    kept: list[Source] = []
    labels: list[tuple[Label, ...]] = []
    parts: list[tuple[np.ndarray, ...]] = []
    total, refused = 0, ""
    for source in track(sources, "reading programs"):
        if most is not None and total >= most:
            break
        try:
            own = token_labels(source.text, source.language, roles)
        except DataError as error:
            refused = f"{source.name}: {error}"
            continue
        coded = tokenizer(
            source.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        ids = np.array(coded["input_ids"], dtype=np.int64)
        if not len(ids):
            continue
        span = np.array(coded["offset_mapping"], dtype=np.int64)
        room = len(ids) if most is None else most - total
        room = room if each is None else min(room, each)
        ids, span = ids[:room], span[:room]
        parts.append((ids, np.full(len(ids), len(kept)), span, _belongs(source.text, span, own)))
        kept.append(source)
        labels.append(tuple(own))
        total += len(ids)
    if not parts:
        raise DataError(f"none of {len(sources)} programs could be read {refused}".strip())
    ids, number, span, label = (np.concatenate(column) for column in zip(*parts, strict=True))
    batches = _batches(ids, number, tokenizer, length, batch_size, padding_side)
    return Corpus(batches, tuple(kept), ids, number, span, label, tuple(labels))


def _belongs(
    text: str, span: np.ndarray, labels: Sequence[tuple[int, int, str, str]]
) -> np.ndarray:
    """Label of every sub-word, -1 for blanks, ``[sub-words]``."""
    owner = np.full(len(text) + 1, -1)
    for number, (start, end, _, _) in enumerate(labels):
        owner[start:end] = number
    solid = np.array([not character.isspace() for character in text] + [True])
    following = np.where(solid, np.arange(len(text) + 1), len(text))
    following = np.minimum.accumulate(following[::-1])[::-1]
    first = following[span[:, 0]]
    return np.where(first < span[:, 1], owner[first], owner[span[:, 0]])


def _batches(
    ids: np.ndarray, number: np.ndarray, tokenizer: Any, length: int, size: int, side: str
) -> list[Batch]:
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    windows = []
    for one in np.split(ids, np.flatnonzero(np.diff(number)) + 1):
        windows += [one[i : i + length] for i in range(0, len(one), length)]
    batches: list[Batch] = []
    for start in range(0, len(windows), size):
        rows = windows[start : start + size]
        longest = max(map(len, rows))
        tokens = torch.full((len(rows), longest), pad)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for row, window in enumerate(rows):
            at = slice(0, len(window)) if side == "right" else slice(longest - len(window), None)
            tokens[row, at] = torch.from_numpy(window)
            mask[row, at] = 1
        batches.append(({"input_ids": tokens, "attention_mask": mask}, None))
    return batches


def languages(corpus: Corpus) -> tuple[str, ...]:
    """The languages that a corpus holds."""
    return tuple(name for name in LANGUAGES if any(s.language == name for s in corpus.sources))
