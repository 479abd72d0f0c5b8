"""Lines of a corpus and the tokens in them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlprune.errors import DataError
from rlprune.progress import track

CHUNK = 1000


@dataclass(frozen=True)
class Corpus:
    """Text, line by line, as often as it is asked for.

    Attributes:
        source: a file of one line each in UTF-8, or the lines.
    """

    source: Path | tuple[str, ...]

    @staticmethod
    def of(source: Any) -> Corpus:
        """Take what a user gives: a path, or strings.

        Raises:
            DataError: the file is not there, or there is no line.
        """
        if isinstance(source, (str, Path)):
            path = Path(source).expanduser()
            if not path.is_file():
                raise DataError(f"corpus {path} is no file; give a text file, or a list of strings")
            corpus = Corpus(path)
        elif not isinstance(source, Iterable) or isinstance(source, (bytes, Mapping)):
            raise DataError(f"corpus {source!r}: give a text file, or strings")
        else:
            corpus = Corpus(tuple(str(line) for line in source))
        if next(iter(corpus), None) is None:
            raise DataError("the corpus holds no line of text")
        return corpus

    def __iter__(self) -> Iterator[str]:
        """The lines that hold something, without their ends."""
        for line in self._raw():
            if line.strip():
                yield line.rstrip("\r\n")

    def _raw(self) -> Iterator[str]:
        if isinstance(self.source, tuple):
            yield from self.source
            return
        with open(self.source, encoding="utf-8", errors="replace", newline="") as handle:
            yield from handle

    def chunks(self) -> Iterator[list[str]]:
        """The lines, some at a time; of a file also what they make together.

        Line ends and the white space after them are tokens too, for whoever reads a file whole.
        """
        raw = self._raw()
        while chunk := list(itertools.islice(raw, CHUNK)):
            texts = [line.rstrip("\r\n") for line in chunk if line.strip()]
            yield texts if isinstance(self.source, tuple) else [*texts, "".join(chunk)]


def encodings(tokenizer: Any, corpus: Iterable[list[str]]) -> Iterator[tuple[str, list[int]]]:
    """Every line of a corpus with its ids, special tokens among them.

    Args:
        tokenizer: a ``tokenizers.Tokenizer``.
        corpus: lines in chunks.
    """
    for chunk in corpus:
        for line, found in zip(chunk, tokenizer.encode_batch(chunk), strict=True):
            yield line, found.ids


def count_tokens(tokenizer: Any, corpus: Corpus, progress: bool | None = None) -> Counter[int]:
    """How often each id occurs."""
    counts: Counter[int] = Counter()
    for _, ids in track(encodings(tokenizer, corpus.chunks()), "tokens", show=progress):
        counts.update(ids)
    return counts
