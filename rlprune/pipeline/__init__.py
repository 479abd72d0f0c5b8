"""The pipeline: prune a network in stages that survive interruption, and load the result."""

from __future__ import annotations

from rlprune.pipeline.load import load
from rlprune.pipeline.prune import prune
from rlprune.pipeline.result import PruneResult

__all__ = ["PruneResult", "load", "prune"]
