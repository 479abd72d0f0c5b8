"""Models and tokenizers from a folder of the hub's layout, or by their name on the hub."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from rlprune.errors import CheckpointError, ConfigError

log = logging.getLogger(__name__)

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "spiece.model")


def load(
    path: str | Path,
    *,
    architecture: str | None = None,
    dtype: Any = "auto",
    **options: Any,
) -> tuple[Any, Any]:
    """Load a model and its tokenizer.

    Weights are read from safetensors, and no code from the folder runs: a network that `save`
    wrote with its modelling file is built by rlprune's own copy of that file.

    Args:
        path: a folder with ``config.json`` and ``model.safetensors`` (or its shards), or a name on
            the hub.
        architecture: class of transformers; None takes the one that the configuration names. A
            head that the checkpoint does not hold, as that of
            ``architecture="BertForSequenceClassification", num_labels=6``, gets fresh weights.
        dtype: of the weights; "auto" keeps the stored one.
        **options: passed on to ``from_pretrained`` (``attn_implementation``, ``num_labels``, ...).

    Returns:
        The model in eval mode, and the tokenizer; None where there is none.

    Raises:
        CheckpointError: nothing readable is there; says what is missing.
        ConfigError: the architecture is none of transformers.
    """
    where = Path(path).expanduser()
    source = str(where) if where.is_dir() else str(path)
    content = configuration(path)
    kind = _class(content, architecture, source)
    try:
        model, info = kind.from_pretrained(
            source, use_safetensors=True, dtype=dtype, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{source}: {error}") from error
    missing = sorted(info["missing_keys"])
    if missing and architecture is None:
        log.warning("%s does not hold %s: fresh weights", source, ", ".join(missing))
    if info.get("mismatched_keys") and not options.get("ignore_mismatched_sizes"):
        raise CheckpointError(f"{source}: of another shape: {list(info['mismatched_keys'])[:5]}")
    return model.eval(), tokenizer_of(source)


def tokenizer_of(source: str | None) -> Any:
    """The tokenizer of a folder or a name on the hub; None where there is none."""
    import transformers

    if source is None:
        return None
    where = Path(source).expanduser()
    if where.is_dir() and not any((where / name).is_file() for name in TOKENIZER_FILES):
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(str(where) if where.is_dir() else source)
    except (OSError, ValueError, KeyError) as error:
        log.warning("%s: no tokenizer: %s", source, error)
        return None


def configuration(path: str | Path) -> dict[str, Any]:
    """The configuration of a folder or a name on the hub as plain data.

    Raises:
        CheckpointError: it is not there, or there are no weights in safetensors beside it.
    """
    import transformers

    where = Path(path).expanduser()
    source = str(where) if where.is_dir() else str(path)
    if not where.is_dir():
        try:
            found = transformers.PretrainedConfig.get_config_dict(source)[0]
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{source!r} is no folder, and the hub does not give it "
                f"({str(error).splitlines()[0]}); give a folder with config.json and "
                "model.safetensors"
            ) from error
        return dict(found)
    try:
        content = json.loads((where / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{source}: no readable config.json ({error})") from error
    if not any(where.glob("*.safetensors")):
        others = ", ".join(sorted(p.name for p in where.glob("*.bin"))) or "no weights"
        raise CheckpointError(
            f"{source} holds {others}, but only safetensors are read (others can run code): "
            "convert them with save_pretrained(safe_serialization=True)"
        )
    return dict(content)


def _class(content: dict[str, Any], architecture: str | None, source: str) -> type[Any]:
    import transformers

    from rlprune.integrations.hf import modeling_pruned

    pruned = "pruned" in content
    if "auto_map" in content and not pruned and architecture is None:
        raise CheckpointError(
            f"{source} brings code of its own ({content['auto_map']}), which is not run; give "
            "architecture= if a class of transformers reads it"
        )
    named = content.get("architectures") or []
    name = architecture or (named[0] if named else "AutoModel")
    name = name.removeprefix("Pruned")
    if not hasattr(transformers, name):
        raise ConfigError(
            f"{source}: transformers {transformers.__version__} has no {name}; give architecture="
        )
    found: type[Any] = getattr(
        modeling_pruned if pruned else transformers, pruned * "Pruned" + name
    )
    return found
