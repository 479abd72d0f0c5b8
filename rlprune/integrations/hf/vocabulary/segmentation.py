"""What the three ways of segmenting need beside the tokens that a corpus uses.

Every one of them gives a text the same pieces from a part of its vocabulary as from all of it, as
long as the part holds what the text uses and the following.

* WordPiece takes the longest piece that fits, so that a piece nobody took is not missed; but the
  pieces on the way to a dead end (an unknown word) are not in the result and are needed too.
* BPE merges the pair of lowest rank: the merges inside a piece are those of the piece alone, so
  that all intermediate pieces of it are needed, and no others.
* Unigram takes the likeliest path; the penalty of an unknown character follows from the rarest
  piece, which is therefore kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from rlprune.errors import ConfigError

KINDS = ("WordPiece", "BPE", "Unigram", "WordLevel")
ASCII = [chr(code) for code in range(33, 127)]
BYTES = [f"<0x{code:02X}>" for code in range(256)]


def pieces_of(model: Mapping[str, Any]) -> dict[str, int]:
    """Pieces of the ``model`` part of a ``tokenizer.json`` -> ids.

    Raises:
        ConfigError: it is of another kind than those known here.
    """
    kind = model.get("type")
    if kind not in KINDS:
        raise ConfigError(f"a tokenizer of type {kind} cannot be trimmed; known: {KINDS}")
    if kind == "Unigram":
        return {piece: at for at, (piece, _) in enumerate(model["vocab"])}
    return dict(model["vocab"])


def needed(model: Mapping[str, Any], used: Iterable[str]) -> set[str]:
    """The pieces to keep so that texts made of some pieces are segmented as before.

    Args:
        model: the ``model`` part of a ``tokenizer.json``.
        used: pieces that occur.

    Returns:
        Those, what segmenting into them needs, and what keeps any other text from failing: bytes,
        single ASCII characters, the unknown piece.
    """
    vocabulary = pieces_of(model)
    kept = {piece for piece in used if piece in vocabulary}
    kind = model["type"]
    kept.update(piece for piece in _safety(model) if piece in vocabulary)
    if kind == "BPE":
        kept |= _closure(model, kept)
    if kind == "Unigram":
        kept.add(min(model["vocab"], key=lambda entry: entry[1])[0])
        if model.get("unk_id") is not None:
            kept.add(model["vocab"][model["unk_id"]][0])
    return kept


def _safety(model: Mapping[str, Any]) -> list[str]:
    pieces = [*ASCII, *BYTES, str(model.get("unk_token"))]
    if model["type"] == "WordPiece":
        prefix = model.get("continuing_subword_prefix", "##")
        return [*pieces, *(prefix + character for character in ASCII)]
    if model["type"] == "BPE":
        suffix = model.get("end_of_word_suffix") or ""
        alphabet = _byte_alphabet()
        return [*pieces, *alphabet, *(character + suffix for character in alphabet)]
    if model["type"] == "Unigram":
        return [*pieces, "▁"]
    return pieces


def _byte_alphabet() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return list(ByteLevel.alphabet())


def merges_of(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges of a BPE model in order, from either way of writing them."""
    pairs = (m.split(" ") if isinstance(m, str) else m for m in model["merges"])
    return [(str(left), str(right)) for left, right in pairs]


def merged(model: Mapping[str, Any], left: str, right: str) -> str:
    """The piece that a merge makes."""
    return left + right.removeprefix(model.get("continuing_subword_prefix") or "")


def _closure(model: Mapping[str, Any], pieces: Iterable[str]) -> set[str]:
    """Every piece that merging some pieces out of their characters passes through."""
    ranks = {pair: rank for rank, pair in enumerate(merges_of(model))}
    prefix = model.get("continuing_subword_prefix") or ""
    suffix = model.get("end_of_word_suffix") or ""
    vocabulary = pieces_of(model)
    found: set[str] = set()
    for piece in pieces:
        if piece in found:
            continue
        body = piece.removesuffix(suffix) if suffix else piece
        parts = [c if at == 0 else prefix + c for at, c in enumerate(body)]
        if suffix and piece.endswith(suffix) and parts:
            parts[-1] += suffix
        found.update(part for part in parts if part in vocabulary)
        while len(parts) > 1:
            pairs = [
                (ranks[pair], at)
                for at, pair in enumerate(itertools.pairwise(parts))
                if pair in ranks
            ]
            if not pairs:
                break
            _, at = min(pairs)
            parts[at : at + 2] = [merged(model, parts[at], parts[at + 1])]
            found.add(parts[at])
    return found


def dead_ends(model: Mapping[str, Any], words: Iterable[str]) -> set[str]:
    """Pieces that WordPiece takes on the way through words that it finally does not know."""
    vocabulary = pieces_of(model)
    prefix = model.get("continuing_subword_prefix", "##")
    found = set()
    for word in words:
        start = 0
        while start < len(word):
            stop = len(word)
            while stop > start:
                piece = (prefix if start else "") + word[start:stop]
                if piece in vocabulary:
                    found.add(piece)
                    break
                stop -= 1
            if stop == start:
                break
            start = stop
    return found
