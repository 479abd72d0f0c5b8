"""Reports: one run as a page and a table, many runs side by side."""

from __future__ import annotations

from rlprune.report import markdown

__all__ = ["markdown"]
