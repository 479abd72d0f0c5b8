"""Compaction: from a plan to an ordinary, dense, smaller network."""

from __future__ import annotations

from rlprune.compaction.build import Workspace, build
from rlprune.compaction.difference import Difference, difference
from rlprune.compaction.discovery import discover
from rlprune.compaction.masking import MaskedWorkspace
from rlprune.compaction.plans import uneven_plan
from rlprune.compaction.verify import masked_copy, try_out, verify

__all__ = [
    "Difference",
    "MaskedWorkspace",
    "Workspace",
    "build",
    "difference",
    "discover",
    "masked_copy",
    "try_out",
    "uneven_plan",
    "verify",
]
