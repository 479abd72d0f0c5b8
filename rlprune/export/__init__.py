"""Exports that open without rlprune: what formats can say, and how they are written."""

from __future__ import annotations

from rlprune.export.format import EVERYWHERE, FORMATS, Format, Handover, Limited, format_of
from rlprune.export.programs import export

__all__ = [
    "EVERYWHERE",
    "FORMATS",
    "Format",
    "Handover",
    "Limited",
    "export",
    "format_of",
]
