"""A fast tokenizer as the metadata of a GGUF file."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from rlprune.errors import ConfigError

log = logging.getLogger(__name__)

_SPECIAL = ("bos", "eos", "unk", "pad")


def add_tokenizer(writer: Any, tokenizer: Any, size: int) -> None:
    """Write tokens, merges and special numbers.

    Args:
        writer: a ``gguf.GGUFWriter``.
        tokenizer: a fast tokenizer of transformers with a BPE model: by bytes (GPT-2's, Llama 3's)
            or with bytes to fall back on (Llama 2's).
        size: rows of the network's embedding; those that the tokenizer does not know are unused.

    Raises:
        ConfigError: it is another kind of tokenizer.
    """
    import gguf

    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        raise ConfigError(f"{type(tokenizer).__name__} has no tokenizer.json to write into GGUF")
    content = json.loads(inner.to_str())
    model = content["model"]
    if model["type"] != "BPE":
        raise ConfigError(f"GGUF of the Llama family takes BPE tokenizers, not {model['type']}")
    kinds, added = gguf.TokenType, {e["id"]: e for e in content.get("added_tokens", [])}
    by_id = {at: piece for piece, at in inner.get_vocab(with_added_tokens=True).items()}
    tokens, types = [], []
    for at in range(size):
        piece = by_id.get(at)
        tokens.append(f"[PAD{at}]" if piece is None else piece)
        if piece is None:
            types.append(kinds.UNUSED)
        elif at in added:
            types.append(kinds.CONTROL if added[at]["special"] else kinds.USER_DEFINED)
        elif piece == model.get("unk_token"):
            types.append(kinds.UNKNOWN)
        elif model.get("byte_fallback") and _is_byte(piece):
            types.append(kinds.BYTE)
        else:
            types.append(kinds.NORMAL)
    by_bytes = _pre_tokenizer(content) is not None
    writer.add_tokenizer_model("gpt2" if by_bytes else "llama")
    writer.add_tokenizer_pre(_pre_tokenizer(content) or "default")
    writer.add_token_list(tokens)
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    if by_bytes:
        writer.add_token_merges(merges)
    else:  # there, pairs are joined by the score of what they make
        rank = {merge.replace(" ", "", 1): -float(at + 1) for at, merge in enumerate(merges)}
        writer.add_token_scores([rank.get(token, 0.0) for token in tokens])
    writer.add_token_types(types)
    for name in _SPECIAL:
        number = getattr(tokenizer, f"{name}_token_id", None)
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    first = inner.encode("a").ids[:1]
    writer.add_add_bos_token(bool(first) and first[0] == tokenizer.bos_token_id)
    writer.add_add_space_prefix(not by_bytes)
    if getattr(tokenizer, "chat_template", None):
        writer.add_chat_template(tokenizer.chat_template)


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def _pre_tokenizer(content: Mapping[str, Any]) -> str | None:
    """llama.cpp's name of a byte-level pre-tokenizer; None where text is split into characters."""
    node = content.get("pre_tokenizer") or {}
    parts = node.get("pretokenizers", [node])
    kinds = [part.get("type") for part in parts]
    if "ByteLevel" not in kinds:
        return None
    level = parts[kinds.index("ByteLevel")]
    patterns = "".join(p["pattern"].get("Regex", "") for p in parts if p.get("type") == "Split")
    if kinds == ["ByteLevel"] and level.get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits"):
        return "smollm"
    if "\\p{N}{1,3}" in patterns:
        return "llama-bpe"
    if "|\\p{N}|" in patterns:
        return "qwen2"
    log.warning("llama.cpp may split texts in another way: it has no name for %s", kinds)
    return "default"
