"""Where candidates are measured: in this process, or in several."""

from __future__ import annotations

from rlprune.problem.executors.base import Executor
from rlprune.problem.executors.serial import SerialExecutor

__all__ = ["Executor", "SerialExecutor"]
