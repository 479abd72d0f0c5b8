"""Networks by name, and checkpoints that are checked before they are loaded."""

from __future__ import annotations

from rlprune.models.checkpoint import load_checkpoint, save_weights
from rlprune.models.registry import create, names, register

__all__ = ["create", "load_checkpoint", "names", "register", "save_weights"]
