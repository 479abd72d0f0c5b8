"""Compaction: from a plan to an ordinary, dense, smaller network."""

from __future__ import annotations

from rlprune.compaction.build import Workspace, build
from rlprune.compaction.discovery import discover
from rlprune.compaction.verify import masked_copy, probe, verify

__all__ = ["Workspace", "build", "discover", "masked_copy", "probe", "verify"]
