"""Hugging Face: models and tokenizers in and out, and the vocabulary (extra ``rlprune[hf]``).

Public as ``rlprune.hf``. transformers is imported when a function is first called.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlprune.integrations.hf.building import build
    from rlprune.integrations.hf.expression import Expression, express, follow
    from rlprune.integrations.hf.loading import load
    from rlprune.integrations.hf.pipeline import prune
    from rlprune.integrations.hf.saving import save
    from rlprune.integrations.hf.vocabulary import trim_vocabulary

__all__ = ["Expression", "build", "express", "follow", "load", "prune", "save", "trim_vocabulary"]

_HOMES = {
    "Expression": "expression",
    "build": "building",
    "express": "expression",
    "follow": "expression",
    "load": "loading",
    "prune": "pipeline",
    "save": "saving",
    "trim_vocabulary": "vocabulary",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in _HOMES:
        return getattr(import_module(f"rlprune.integrations.hf.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'rlprune.hf' has no attribute '{name}'")
