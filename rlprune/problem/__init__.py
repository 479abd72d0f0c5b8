"""Problem: from plans to quality and costs, cached and counted in a ledger."""

from __future__ import annotations

from rlprune.problem.create import (
    EvaluatorConfig,
    calibration_of,
    create,
    qualities,
    unit_scores,
)
from rlprune.problem.evaluation import Evaluation
from rlprune.problem.executors import (
    EXECUTORS,
    Executor,
    ProcessExecutor,
    RayExecutor,
    SerialExecutor,
    create_executor,
)
from rlprune.problem.features import features_seen, last_linear
from rlprune.problem.kinds import KINDS, Outputs, kind_of
from rlprune.problem.ledger import Ledger
from rlprune.problem.problem import Problem
from rlprune.problem.quality import DataQuality, Quality, ScoreQuality
from rlprune.problem.store import Store

__all__ = [
    "EXECUTORS",
    "KINDS",
    "DataQuality",
    "Evaluation",
    "EvaluatorConfig",
    "Executor",
    "Ledger",
    "Outputs",
    "Problem",
    "ProcessExecutor",
    "Quality",
    "RayExecutor",
    "ScoreQuality",
    "SerialExecutor",
    "Store",
    "calibration_of",
    "create",
    "create_executor",
    "features_seen",
    "kind_of",
    "last_linear",
    "qualities",
    "unit_scores",
]
