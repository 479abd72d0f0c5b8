"""GGUF files of Llama-family networks, for llama.cpp (extra ``rlprune[gguf]``)."""

from __future__ import annotations

from rlprune.integrations.gguf.writing import save_gguf

__all__ = ["save_gguf"]
