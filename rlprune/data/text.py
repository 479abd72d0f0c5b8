"""Texts with labels, and plain text to predict: tokenised once, by a tokenizer or simply."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlprune.data.collate import MASK, stack
from rlprune.data.dataset import Data
from rlprune.data.sources import Deferred, draw
from rlprune.errors import ConfigError, DataError
from rlprune.tasks import LanguageModeling, TextClassification

PATH = str | os.PathLike[str]
PAD, UNKNOWN = 0, 1
BYTES = 256
_WORD = re.compile(r"\w+|[^\w\s]")


def text(
    *,
    train: PATH,
    test: PATH | None = None,
    tokenizer: PATH | None = None,
    vocabulary: int = 8192,
    max_length: int = 64,
    test_share: float = 0.1,
    holdout: float | int = 0.1,
    seed: int = 0,
    name: str | None = None,
) -> Data:
    """Texts to classify: a file with one ``label sentence`` a line, such as ``3 What is TREC ?``.

    Args:
        train: The file of the training split.
        test: The file of the test split; None sets a share of the training split apart.
        tokenizer: Folder or file of a Hugging Face tokenizer, or a hub name. None splits texts
            into lower-case words and numbers the most frequent ones of the training split.
        vocabulary: Most words that are numbered, without a tokenizer.
        max_length: Tokens that longer texts are cut to.
        test_share: Share of the training file in the test split, where there is no other.
        holdout: Share or number of training texts held out.
        seed: Decides the held-out part.
        name: Shown in messages and reports; None takes the file's name.

    Returns:
        Inputs ``input_ids`` and ``attention_mask`` (and what else the tokenizer makes), ``[N, T]``.

    Raises:
        DataError: A file is missing, or a line has no label or no sentence.
    """
    path = Path(train).expanduser()
    labels, sentences = _labelled(path)
    names = sorted(set(labels), key=lambda label: (not label.isdigit(), label.zfill(12)))
    if test is not None:
        other = _labelled(Path(test).expanduser())
        unknown = sorted(set(other[0]) - set(names))
        if unknown:
            raise DataError(f"{test}: label {unknown[0]!r} does not occur in {path}")
        tested = list(zip(*other, strict=True))
        trained = list(zip(labels, sentences, strict=True))
    else:
        pairs = list(zip(labels, sentences, strict=True))
        fixed = torch.Generator().manual_seed(0)
        numbers = torch.tensor([names.index(label) for label in labels])
        apart, left = draw(len(pairs), round(test_share * len(pairs)), numbers, fixed)
        tested, trained = ([pairs[at] for at in part.tolist()] for part in (apart, left))
    encode: Words | Pieces = (
        Words([sentence for _, sentence in trained], vocabulary, max_length)
        if tokenizer is None
        else Pieces(tokenizer, max_length)
    )

    def split(pairs: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
        numbers = torch.tensor([names.index(label) for label, _ in pairs])
        return {**encode([sentence for _, sentence in pairs]), "labels": numbers}

    return Data(
        split(trained),
        test=Deferred(lambda: split(tested), {"texts": tested, "tokens": encode}),
        task=TextClassification(),
        holdout=holdout,
        class_names=names,
        pad=encode.pad,
        facts={"vocab_size": encode.size, "max_length": max_length},
        seed=seed,
        name=name or path.stem,
    )


def text_file(
    *,
    train: PATH,
    test: PATH | None = None,
    pattern: str = "*",
    tokenizer: PATH | None = None,
    length: int = 128,
    limit: int | None = None,
    test_share: float = 0.1,
    holdout: float | int = 0.1,
    seed: int = 0,
    name: str | None = None,
) -> Data:
    """Plain text to predict token by token, in blocks of equal length.

    Args:
        train: A text file, or a folder of which all files that match ``pattern`` are read, in the
            order of their names.
        test: The text of the test split, likewise; None takes the end of the training text.
        pattern: Which files of a folder, such as ``*.py``; subfolders are searched.
        tokenizer: Folder or file of a Hugging Face tokenizer, or a hub name; None takes the bytes
            of the text, of which there are 256.
        length: Tokens per block.
        limit: Most bytes of the training text; None takes all.
        test_share: Share of the training text in the test split, where there is no other.
        holdout: Share or number of blocks held out.
        seed: Decides the held-out blocks.
        name: Shown in messages and reports; None takes the path's name.

    Returns:
        Tokens ``[N, length]``, which are their own labels.

    Raises:
        DataError: There is no file, or the text is shorter than a few blocks.
    """
    if length < 2:
        raise ConfigError(f"text_file: length={length} leaves nothing to predict; give 2 or more")
    path = Path(train).expanduser()
    encode = _bytes if tokenizer is None else Pieces(tokenizer, None).stream
    size = BYTES if tokenizer is None else Pieces(tokenizer, None).size
    content = _read(path, pattern, limit)
    end = len(content) if test is not None else round((1 - test_share) * len(content))
    blocks = _blocks(encode(content[:end]), length, path)

    def last() -> Tensor:
        if test is None:
            return _blocks(encode(content[end:]), length, path)
        other = Path(test).expanduser()
        return _blocks(encode(_read(other, pattern, None)), length, other)

    return Data(
        blocks,
        test=Deferred(last, content[end:] if test is None else _listed(Path(test), pattern)),
        task=LanguageModeling(),
        holdout=holdout,
        num_classes=size,
        facts={"vocab_size": size, "max_length": length},
        seed=seed,
        name=name or path.stem,
    )


class Words:
    """Lower-case words and punctuation by number: 0 pads, 1 stands for all that are not known.

    Args:
        sentences: Texts whose most frequent words are numbered.
        most: Numbers at most, those two included.
        max_length: Words that longer texts are cut to.
    """

    pad = PAD

    def __init__(self, sentences: Sequence[str], most: int, max_length: int) -> None:
        counts = Counter(word for sentence in sentences for word in _words(sentence))
        ordered = sorted(counts, key=lambda word: (-counts[word], word))[: most - 2]
        self.numbers = {word: at for at, word in enumerate(ordered, start=2)}
        self.size, self.max_length = len(ordered) + 2, max_length

    def identity(self) -> Any:
        """The words in the order of their numbers."""
        return {"words": list(self.numbers), "max_length": self.max_length}

    def __call__(self, sentences: Sequence[str]) -> dict[str, Tensor]:
        """Numbers and mask ``[N, T]`` of texts."""
        rows = [
            torch.tensor(
                [self.numbers.get(word, UNKNOWN) for word in _words(sentence)][: self.max_length]
                or [UNKNOWN]
            )
            for sentence in sentences
        ]
        return {
            "input_ids": stack(rows, PAD),
            MASK: stack([torch.ones_like(row) for row in rows], 0),
        }


class Pieces:
    """A Hugging Face tokenizer.

    Args:
        path: Its folder, its ``tokenizer.json``, or a name on the hub.
        max_length: Tokens that longer texts are cut to; None cuts nothing.

    Raises:
        ConfigError: The library is not installed.
        DataError: There is no tokenizer.
    """

    def __init__(self, path: PATH, max_length: int | None) -> None:
        try:
            from transformers import AutoTokenizer, PreTrainedTokenizerFast
        except ImportError as error:
            raise ConfigError(
                f"tokenizer={path} needs transformers: pip install 'rlprune[hf]'"
            ) from error
        try:
            if str(path).endswith(".json"):
                found: Any = PreTrainedTokenizerFast(tokenizer_file=str(path))
            else:
                found = AutoTokenizer.from_pretrained(str(path))
        except Exception as error:  # the library raises many kinds
            raise DataError(f"tokenizer {path} cannot be loaded ({error})") from error
        if found.pad_token_id is None:
            found.pad_token = found.eos_token or found.convert_ids_to_tokens(0)
        self._tokenizer, self.max_length = found, max_length
        self.pad, self.size = int(found.pad_token_id), len(found)

    def identity(self) -> Any:
        """Its vocabulary; tokens of what it reads tell the rest."""
        return {"vocabulary": self._tokenizer.get_vocab(), "max_length": self.max_length}

    def __call__(self, sentences: Sequence[str]) -> dict[str, Tensor]:
        """What the tokenizer makes of texts, ``[N, T]`` each."""
        made = self._tokenizer(
            list(sentences),
            truncation=self.max_length is not None,
            max_length=self.max_length,
            padding=True,
            return_tensors="pt",
        )
        return dict(made)

    def stream(self, content: bytes) -> Tensor:
        """The tokens of a long text, none added."""
        lines = content.decode("utf-8", errors="replace").splitlines(keepends=True)
        made = self._tokenizer(lines, add_special_tokens=False)["input_ids"]
        return torch.tensor([token for line in made for token in line])


def _words(sentence: str) -> list[str]:
    return _WORD.findall(sentence.lower())


def _bytes(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).astype(np.int64))


def _labelled(path: Path) -> tuple[list[str], list[str]]:
    """Labels and sentences of a file."""
    if not path.is_file():
        raise DataError(f"text file {path} does not exist; give the right one")
    labels, sentences = [], []
    for number, line in enumerate(_decoded(path.read_bytes()).split("\n"), start=1):
        if not line.strip():
            continue
        label, _, sentence = line.strip().partition(" ")
        if not sentence.strip():
            raise DataError(f"{path}, line {number}: expected 'label sentence', got {line[:60]!r}")
        labels.append(label)
        sentences.append(sentence.strip())
    if not labels:
        raise DataError(f"text file {path} holds no line")
    return labels, sentences


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _read(path: Path, pattern: str, limit: int | None) -> bytes:
    content = bytearray()
    for file in _files(path, pattern):
        content += file.read_bytes()
        if limit is not None and len(content) >= limit:
            return bytes(content[:limit])
    return bytes(content)


def _listed(path: Path, pattern: str) -> list[tuple[str, int]]:
    """Names and sizes of the files of a text that must not be read yet."""
    return [(file.name, file.stat().st_size) for file in _files(path.expanduser(), pattern)]


def _files(path: Path, pattern: str) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(found for found in path.rglob(pattern) if found.is_file())
    if not files:
        raise DataError(f"{path} is neither a text file nor a folder with files {pattern!r}")
    return files


def _blocks(tokens: Tensor, length: int, path: Path) -> Tensor:
    count = len(tokens) // length
    if count < 1:
        raise DataError(
            f"{path}: {len(tokens)} tokens are less than a block of {length}; give more text or a "
            "smaller length"
        )
    return tokens[: count * length].view(count, length)
