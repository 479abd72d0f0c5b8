"""``rlprune vocab``: drop the tokens of a model that a corpus does not use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlprune.errors import ConfigError

USAGE = "rlprune vocab model.path=DIR corpus=FILE out=DIR [min_count=1]"


def vocab(arguments: Sequence[str]) -> None:
    """Trim the vocabulary of a folder of the hub's layout into another folder.

    Raises:
        ConfigError: an argument is missing or unknown.
        RlpruneError: the model or its tokenizer cannot be read or trimmed.
    """
    from rich.console import Console

    from rlprune import hf

    options = _options(arguments)
    source, out = options["model.path"], Path(options["out"]).expanduser()
    model, tokenizer = hf.load(source)
    if tokenizer is None:
        raise ConfigError(f"model.path={source} holds no tokenizer")
    smaller, shorter, kept = hf.trim_vocabulary(
        model, tokenizer, options["corpus"], int(options["min_count"])
    )
    hf.save(smaller, out, shorter)
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, smaller))
    rows = int(model.get_input_embeddings().weight.shape[0])
    console = Console()
    console.print(f"tokens      {rows:>14,} -> {len(kept):,}")
    console.print(f"parameters  {before:>14,} -> {after:,}")
    console.print(f"{out}", soft_wrap=True)


def with_vocabulary(config: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """A run's configuration with the network and tokenizer of a smaller vocabulary.

    Args:
        config: The composed configuration; the same is returned where no corpus is given.
        folder: The run folder. The smaller network is kept in it.

    Raises:
        ConfigError: The network is none of a folder of the hub's layout.
        RlpruneError: It cannot be read or trimmed.
    """
    asked = config["vocabulary"]
    if not isinstance(asked, Mapping) or set(asked) != {"corpus", "min_count"}:
        raise ConfigError(f"vocabulary={asked!r}: it has the options corpus and min_count")
    if asked["corpus"] is None:
        return config
    if not isinstance(asked["corpus"], str):
        raise ConfigError(f"vocabulary.corpus={asked['corpus']!r}: give a text file")
    model = config["model"]
    if model.get("_target_") != "rlprune.integrations.hf.build":
        raise ConfigError("vocabulary.corpus needs model=hf with model.path=a folder")
    from rlprune.integrations.hf.vocabulary import trimmed

    made = trimmed(
        model["path"],
        folder,
        asked["corpus"],
        asked["min_count"],
        architecture=model.get("architecture"),
    )
    data = dict(config["data"])
    if "tokenizer" in data:
        data["tokenizer"] = str(made)
    return {**config, "model": {**model, "path": str(made)}, "data": data}


def _options(arguments: Sequence[str]) -> dict[str, str]:
    found = {"min_count": "1"}
    for item in arguments:
        name, sign, value = item.partition("=")
        if not sign or name not in ("model.path", "corpus", "out", "min_count"):
            raise ConfigError(f"{item!r} is not understood; write {USAGE}")
        found[name] = value
    missing = [name for name in ("model.path", "corpus", "out") if not found.get(name)]
    if missing:
        raise ConfigError(f"{missing[0]}= is missing; write {USAGE}")
    if not found["min_count"].isdigit():
        raise ConfigError(f"min_count={found['min_count']}: a whole number from 1 on is needed")
    return found
