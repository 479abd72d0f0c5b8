"""The pipeline: prune a network in stages that survive interruption, and load the result."""

from __future__ import annotations

from rlprune.pipeline.loading import load
from rlprune.pipeline.pruning import prune
from rlprune.pipeline.result import PruneResult

__all__ = ["PruneResult", "load", "prune"]
