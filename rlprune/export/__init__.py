"""Exports that open without rlprune: ONNX and torch.export."""

from __future__ import annotations

from rlprune.export.formats import export

__all__ = ["export"]
