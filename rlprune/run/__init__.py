"""The pipeline: prune a network in stages that survive interruption, and load the result."""

from __future__ import annotations

from rlprune.run.loading import load
from rlprune.run.pruning import prune
from rlprune.run.result import PruneResult

__all__ = ["PruneResult", "load", "prune"]
