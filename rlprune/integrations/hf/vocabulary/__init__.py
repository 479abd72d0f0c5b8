"""The vocabulary: fewer tokens, the same segmentation of a corpus and the same answers."""

from __future__ import annotations

from rlprune.integrations.hf.vocabulary.trim import trim_vocabulary
from rlprune.integrations.hf.vocabulary.trimmed import trimmed, vocabulary_of, with_vocabulary

__all__ = ["trim_vocabulary", "trimmed", "vocabulary_of", "with_vocabulary"]
