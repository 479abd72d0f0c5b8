"""A folder with the dense network of a run for the tokens that stay, made once and found again."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlprune.budgets import disk_bytes
from rlprune.errors import ConfigError
from rlprune.files import file_digest, read_json, write_json
from rlprune.identity import digest
from rlprune.integrations.hf.loading import load
from rlprune.integrations.hf.saving import save
from rlprune.integrations.hf.vocabulary.corpus import Corpus
from rlprune.integrations.hf.vocabulary.trim import trim_vocabulary
from rlprune.plan import Plan

log = logging.getLogger(__name__)

FOLDER = "trimmed"
"""Below a run folder."""
VOCABULARY = "vocabulary.json"
"""Which tokens stayed, their sizes, and what that depends on."""


def trimmed(
    path: str | Path,
    out: Path,
    corpus: str | Path | Iterable[str],
    min_count: int = 1,
    *,
    architecture: str | None = None,
    progress: bool | None = None,
) -> Path:
    """Trim the vocabulary of a network into ``out/trimmed``, unless that is there.

    Args:
        path: a folder of the hub's layout, or a name on the hub.
        out: the run folder.
        corpus: text whose tokens stay (see `trim_vocabulary`).
        min_count: fewest occurrences of a token that stays.
        architecture: class of transformers; None takes the one that the folder names.
        progress: draw bars; None draws them on a terminal.

    Returns:
        The folder, of the hub's layout, with ``vocabulary.json``.

    Raises:
        ConfigError: there is no tokenizer, or the folder holds a vocabulary of another corpus.
        RlpruneError: whatever `load` and `trim_vocabulary` raise.
    """
    import torch

    target = out / FOLDER
    text = Corpus.of(corpus)
    causes = {
        "network": _content(path),
        "corpus": file_digest(text.source) if isinstance(text.source, Path) else text.source,
        "min_count": min_count,
        "architecture": architecture,
    }
    cause = digest(causes)
    known = read_json(target / VOCABULARY)
    if known is not None:
        if known["cause"] != cause:
            raise ConfigError(
                f"{target} holds a vocabulary of another network, corpus or min_count; choose "
                "another run folder, or remove it"
            )
        log.info("vocabulary: %d tokens, kept from before", len(known["kept"]))
        return target
    dense, tokenizer = load(path, architecture=architecture, dtype=torch.float32)
    if tokenizer is None:
        raise ConfigError(f"{path} holds no tokenizer, so its vocabulary cannot be trimmed")
    smaller, shorter, kept = trim_vocabulary(
        dense, tokenizer, text.source, min_count, progress=progress
    )
    shutil.rmtree(target, ignore_errors=True)
    save(smaller, target, shorter)
    rows = int(dense.get_input_embeddings().weight.shape[0])
    write_json(  # last: without it the folder is made again
        target / VOCABULARY,
        {
            "cause": cause,
            "tokens": {"before": rows, "after": len(kept)},
            "disk_bytes": {"before": disk_bytes(dense), "after": disk_bytes(smaller)},
            "kept": kept.tolist(),
        },
    )
    return target


def with_vocabulary(plan: Plan, source: str | None) -> Plan:
    """A plan with the tokens that stayed, where the dense network's folder says so."""
    known = vocabulary_of(source)
    return plan if known is None else replace(plan, vocabulary=tuple(known["kept"]))


def vocabulary_of(source: str | Path | None) -> dict[str, Any] | None:
    """What a folder says of its smaller vocabulary; None where it has its own whole one."""
    found = None if source is None else read_json(Path(source).expanduser() / VOCABULARY)
    return None if found is None else dict(found)


def _content(path: str | Path) -> Any:
    """What a folder holds; a name on the hub stands for itself."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return str(path)
    files = (*folder.glob("*.safetensors"), *folder.glob("*.json"))
    return {file.name: file_digest(file) for file in sorted(files)}
