"""The dense network of a run from a folder of the hub's layout (``model=hf model.path=DIR``)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import nn

from rlprune.integrations.hf.loading import configuration, load

log = logging.getLogger(__name__)


def build(
    path: str | Path,
    architecture: str | None = None,
    num_classes: int | None = None,
    attention: str | None = None,
    vocab_size: int | None = None,
) -> nn.Module:
    """Load a network of transformers as `rlprune.models.create` builds any other.

    Args:
        path: a folder of the hub's layout, or a name on the hub.
        architecture: class of transformers; None takes the one that the folder names, or, for
            ``num_classes`` where that has no classes, the classifier of its family.
        num_classes: number of outputs of a classifier.
        vocab_size: number of tokens of the data; where these are the classes, too, texts are
            predicted token by token, and the folder's own architecture does so.
        attention: ``eager`` or ``sdpa``; None leaves the choice to transformers.

    Returns:
        The network in float32 and eval mode. A head that the folder does not hold is fresh, and
        has to be trained (``model.trained=false``).

    Raises:
        CheckpointError: nothing readable is there.
        ConfigError: the architecture is none of transformers.
    """
    import torch

    if num_classes is not None and num_classes == vocab_size:
        num_classes = None
    options: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    content = configuration(path)
    named = str((content.get("architectures") or [""])[0])
    if num_classes is not None and architecture is None and "Classification" not in named:
        architecture = _classifier(content)
    if num_classes is not None and "Classification" in (architecture or named):
        options["num_labels"] = num_classes
        there = len(content.get("id2label") or (0, 1))  # transformers' default is two
        if "Classification" in named and there != num_classes:
            log.warning("%s classifies %d classes, not %d: a new head", path, there, num_classes)
            options["ignore_mismatched_sizes"] = True
    model, _ = load(path, architecture=architecture, dtype=torch.float32, **options)
    found: nn.Module = model
    return found


def _classifier(content: dict[str, Any]) -> str | None:
    """The class of transformers that classifies texts with this type of model."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as NAMES,
    )

    found = NAMES.get(str(content.get("model_type")))
    return found if found is None or isinstance(found, str) else str(found[0])
