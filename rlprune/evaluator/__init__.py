"""Evaluator: from widths to quality and costs, cached and counted in a ledger."""

from __future__ import annotations

from rlprune.evaluator import projection
from rlprune.evaluator.allocation import allocate
from rlprune.evaluator.create import EvaluatorConfig, calibration_of, create, qualities
from rlprune.evaluator.evaluation import Evaluation
from rlprune.evaluator.evaluator import Evaluator
from rlprune.evaluator.kinds import KINDS
from rlprune.evaluator.quality import DataQuality, Quality, ScoreQuality
from rlprune.evaluator.store import Store

__all__ = [
    "KINDS",
    "DataQuality",
    "Evaluation",
    "Evaluator",
    "EvaluatorConfig",
    "Quality",
    "ScoreQuality",
    "Store",
    "allocate",
    "calibration_of",
    "create",
    "projection",
    "qualities",
]
