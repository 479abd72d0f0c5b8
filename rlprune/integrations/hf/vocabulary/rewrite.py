"""A tokenizer with fewer tokens: its ``tokenizer.json`` written anew."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from rlprune.errors import ConfigError
from rlprune.integrations.hf.vocabulary.segmentation import merged, merges_of


def backend(tokenizer: Any) -> Any:
    """The ``tokenizers.Tokenizer`` inside a tokenizer of transformers, as a copy that cuts nothing.

    Raises:
        ConfigError: there is none.
    """
    from tokenizers import Tokenizer

    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        raise ConfigError(
            f"{type(tokenizer).__name__} is written in Python; trimming a vocabulary needs a fast "
            "tokenizer (tokenizer.json): load it with AutoTokenizer.from_pretrained(..., "
            "use_fast=True)"
        )
    twin = Tokenizer.from_str(inner.to_str())
    twin.no_truncation()
    twin.no_padding()
    return twin


def with_backend(tokenizer: Any, content: Mapping[str, Any]) -> Any:
    """A copy of a tokenizer of transformers around another ``tokenizer.json``."""
    from tokenizers import Tokenizer

    smaller = copy.deepcopy(tokenizer)
    smaller._tokenizer = Tokenizer.from_str(json.dumps(content))
    if hasattr(smaller, "vocab_file"):
        smaller.vocab_file = None  # what it names holds the old vocabulary
    smaller.init_kwargs.pop("vocab_file", None)
    for name in ("_vocab", "_merges"):  # transformers 5 keeps what it was built from
        vars(smaller).pop(name, None)
    return smaller


def rewritten(content: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """A ``tokenizer.json`` with some of its tokens under other numbers.

    Args:
        content: the parsed file; not changed.
        new: old id -> new id, of the tokens that stay.
    """
    out = copy.deepcopy(dict(content))
    out["model"] = _model(out["model"], new)
    added = [entry for entry in out.get("added_tokens", []) if entry["id"] in new]
    for entry in added:
        entry["id"] = new[entry["id"]]
    out["added_tokens"] = sorted(added, key=lambda entry: entry["id"])
    if out.get("post_processor"):
        out["post_processor"] = _processor(out["post_processor"], new)
    if out.get("padding"):
        out["padding"]["pad_id"] = new[out["padding"]["pad_id"]]
    return out


def _model(model: dict[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    if model["type"] == "Unigram":
        order = sorted((new[at], at) for at in range(len(model["vocab"])) if at in new)
        vocabulary = [model["vocab"][at] for _, at in order]
        unknown = model.get("unk_id")
        return model | {
            "vocab": vocabulary,
            "unk_id": None if unknown is None else new[unknown],
        }
    pieces = {piece: new[at] for piece, at in model["vocab"].items() if at in new}
    out = model | {"vocab": dict(sorted(pieces.items(), key=lambda item: item[1]))}
    if model["type"] == "BPE":
        kept = [
            list(pair)
            for pair in merges_of(model)
            if pair[0] in pieces and pair[1] in pieces and merged(model, *pair) in pieces
        ]
        spelled = model["merges"] and isinstance(model["merges"][0], str)
        out["merges"] = [" ".join(pair) for pair in kept] if spelled else kept
    return out


def _processor(node: Any, new: Mapping[int, int]) -> Any:
    """Ids in a post-processor: ``"ids": [..]`` of templates, ``["[SEP]", 102]`` of BERT's."""
    if isinstance(node, list):
        if len(node) == 2 and isinstance(node[0], str) and type(node[1]) is int:
            return [node[0], new[node[1]]]
        return [_processor(item, new) for item in node]
    if isinstance(node, dict):
        return {
            key: [new[at] for at in value] if key == "ids" else _processor(value, new)
            for key, value in node.items()
        }
    return node
