"""Errors that rlprune raises on purpose: each says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class RlpruneError(Exception):
    """Base of every error that rlprune raises on purpose."""


class StructureError(RlpruneError):
    """The network's structure cannot be traced, or a traced assumption does not hold.

    Attributes:
        steps: the ops that ran before a traced forward pass failed.
    """

    steps: Sequence[Any] = ()


class PlanError(RlpruneError, ValueError):
    """A plan is malformed or does not fit the network it is applied to."""


class BudgetError(RlpruneError):
    """A budget is malformed, or its function raised or returned something unusable."""


class InfeasibleBudgetError(BudgetError):
    """No plan can meet the budgets."""


class DataError(RlpruneError):
    """A data set is missing, malformed, or does not fit the network."""


class ConfigError(RlpruneError, ValueError):
    """A configuration names something unknown or holds a value outside its range."""


class CheckpointError(RlpruneError):
    """A checkpoint is missing, unreadable, or does not fit the network."""


class ScoreError(RlpruneError):
    """A quality score raised or is not a finite number."""


class NotFiniteError(ScoreError):
    """A quality score is infinite or not a number."""


class TrainingError(RlpruneError):
    """Training cannot go on: the loss is not finite, or a record on disk belongs to another run."""
