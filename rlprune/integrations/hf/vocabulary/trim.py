"""``trim_vocabulary``: drop tokens that a corpus does not use."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from rlprune.errors import ConfigError, StructureError
from rlprune.integrations.hf.vocabulary import embeddings
from rlprune.integrations.hf.vocabulary.corpus import Corpus, count_tokens, encodings
from rlprune.integrations.hf.vocabulary.rewrite import backend, rewritten, with_backend
from rlprune.integrations.hf.vocabulary.segmentation import dead_ends, needed, pieces_of
from rlprune.progress import track

log = logging.getLogger(__name__)


def trim_vocabulary(
    model: Any,
    tokenizer: Any,
    corpus: str | Path | Iterable[str],
    min_count: int = 1,
    *,
    progress: bool | None = None,
) -> tuple[Any, Any, Tensor]:
    """Drop the tokens of a vocabulary that a corpus does not use.

    Kept are special and added tokens, tokens that occur at least ``min_count`` times, what
    segmenting into those needs (the intermediate pieces of BPE), and what lets any other text be
    read: bytes, single ASCII characters, the unknown token. Every line whose tokens are kept is
    segmented as before, which is checked here for the whole corpus, and the model answers it with
    the same logits on the tokens that stay.

    Args:
        model: a model of transformers with an embedding of tokens; not changed.
        tokenizer: its fast tokenizer (WordPiece, BPE or Unigram); not changed.
        corpus: a text file of one text a line, or strings.
        min_count: fewest occurrences of a token that stays.
        progress: draw bars; None draws them on a terminal.

    Returns:
        The smaller model, its tokenizer, and the old ids in the order of the new ones, [tokens].

    Raises:
        ConfigError: model or tokenizer cannot be trimmed; says why.
        DataError: there is no corpus.
        StructureError: a line would be segmented in another way; shows it.
    """
    if isinstance(min_count, bool) or not isinstance(min_count, int) or min_count < 1:
        raise ConfigError(f"min_count is {min_count!r}; it must be a whole number from 1 on")
    text = Corpus.of(corpus)
    full = backend(tokenizer)
    content = json.loads(full.to_str())
    pieces = pieces_of(content["model"])
    size = embeddings.rows(model)
    names = {at: piece for piece, at in pieces.items()}
    added = {entry["id"] for entry in content.get("added_tokens", [])}
    counts = count_tokens(full, text, progress)
    beyond = max([*counts, *added], default=0)
    if beyond >= size:
        raise ConfigError(f"the tokenizer has a token {beyond}, the model only {size} rows")
    special = embeddings.special_ids(model)
    always = added | special | set(tokenizer.all_special_ids)
    used = {at for at, count in counts.items() if count >= min_count} | always
    extra: set[str] = set()
    while True:
        wanted = needed(content["model"], {names[at] for at in used if at in names} | extra)
        ids = {pieces[piece] for piece in wanted} | {at for at in always if at < size}
        kept = embeddings.order(sorted(ids), tokenizer.pad_token_id, special - set(names) - added)
        new = {old: at for at, old in enumerate(kept.tolist())}
        trimmed = rewritten(content, new)
        missed = _missed(full, trimmed, text, new, progress)
        if not missed:
            break
        found = dead_ends(content["model"], missed) - wanted
        if content["model"]["type"] != "WordPiece" or not found:
            raise StructureError(
                f"with {len(kept)} of {size} tokens the tokenizer would split {missed[0]!r} in "
                "another way; please report the tokenizer"
            )
        extra |= found
    smaller = embeddings.with_tokens(model, kept)
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    log.info("vocabulary: %d of %d tokens kept", len(kept), size)
    return smaller, with_backend(tokenizer, rewritten(whole, new)), kept


def _missed(
    full: Any, trimmed: Any, text: Corpus, new: dict[int, int], progress: bool | None
) -> list[str]:
    """Words of lines whose tokens are all kept and which are now segmented in another way."""
    from tokenizers import Tokenizer

    small = Tokenizer.from_str(json.dumps(trimmed))
    words: dict[str, None] = {}
    pairs = zip(encodings(full, text.chunks()), encodings(small, text.chunks()), strict=True)
    for (line, before), (_, after) in track(pairs, "segmentation", show=progress):
        if any(at not in new for at in before) or [new[at] for at in before] == after:
            continue
        normal = line if full.normalizer is None else full.normalizer.normalize_str(line)
        if full.pre_tokenizer is None:
            words[normal] = None
            continue
        words.update((w, None) for w, _ in full.pre_tokenizer.pre_tokenize_str(normal))
    return list(words)
