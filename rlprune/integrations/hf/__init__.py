"""Hugging Face: models and tokenizers in and out, and the vocabulary (extra ``rlprune[hf]``).

Public as ``rlprune.hf``. transformers is imported when a function is first called.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlprune.integrations.gguf import save_gguf
    from rlprune.integrations.hf.building import build
    from rlprune.integrations.hf.experts import drop_experts
    from rlprune.integrations.hf.expression import Expression, express, follow
    from rlprune.integrations.hf.loading import load
    from rlprune.integrations.hf.pipeline import prune
    from rlprune.integrations.hf.saving import save
    from rlprune.integrations.hf.vocabulary import trim_vocabulary

__all__ = [
    "Expression",
    "build",
    "drop_experts",
    "express",
    "follow",
    "load",
    "prune",
    "save",
    "save_gguf",
    "trim_vocabulary",
]

_HOMES = {
    "Expression": "hf.expression",
    "build": "hf.building",
    "drop_experts": "hf.experts",
    "express": "hf.expression",
    "follow": "hf.expression",
    "load": "hf.loading",
    "prune": "hf.pipeline",
    "save": "hf.saving",
    "save_gguf": "gguf",
    "trim_vocabulary": "hf.vocabulary",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in _HOMES:
        return getattr(import_module(f"rlprune.integrations.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'rlprune.hf' has no attribute '{name}'")
