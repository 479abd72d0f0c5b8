"""Module attributes that repeat a tensor's size and must follow it when it shrinks.

Classes with a meaning of their own have a follower (`layers`, `attention`); integers of any other
module that repeat a size are found by name and value (`repeats`) and, where that is ambiguous,
settled by one trial run of a small network (`settle`).
"""

from __future__ import annotations

from rlprune.compaction.adapters import attention, layers  # noqa: F401 (registers followers)
from rlprune.compaction.adapters._registry import follows
from rlprune.compaction.adapters.attributes import Attributes

__all__ = ["Attributes", "follows"]
