"""The vocabulary: fewer tokens, the same segmentation of a corpus and the same answers."""

from __future__ import annotations

from rlprune.integrations.hf.vocabulary.trim import trim_vocabulary

__all__ = ["trim_vocabulary"]
