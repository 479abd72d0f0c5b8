"""Problem: from widths to quality and costs, cached and counted in a ledger."""

from __future__ import annotations

from rlprune.problem import projection
from rlprune.problem.allocation import allocate
from rlprune.problem.create import EvaluatorConfig, calibration_of, create, qualities
from rlprune.problem.evaluation import Evaluation
from rlprune.problem.kinds import KINDS
from rlprune.problem.problem import Problem
from rlprune.problem.quality import DataQuality, Quality, ScoreQuality
from rlprune.problem.store import Store

__all__ = [
    "KINDS",
    "DataQuality",
    "Evaluation",
    "EvaluatorConfig",
    "Problem",
    "Quality",
    "ScoreQuality",
    "Store",
    "allocate",
    "calibration_of",
    "create",
    "projection",
    "qualities",
]
