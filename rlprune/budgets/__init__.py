"""Budgets: what a network may cost, and how the cost is measured.

A budget is a name, a function of the network that returns a number, and a limit. Built in are
MACs, parameters, bytes in memory and on disk, peak activation memory, bytes of a key-value cache,
and measured latency; any function of
``(model, example_inputs)`` is one too.
"""

from __future__ import annotations

from rlprune.budgets.base import Budget, Estimate, ResolvedBudget
from rlprune.budgets.config import from_config, parse, resolve
from rlprune.budgets.disk import DiskBytes, disk_bytes
from rlprune.budgets.elsewhere import Device, OnnxLatency
from rlprune.budgets.energy import Energy
from rlprune.budgets.latency import Latency, LatencyMeter, LatencySettings
from rlprune.budgets.limits import Limit
from rlprune.budgets.metric import METRICS, Metric, reported
from rlprune.budgets.metrics import (
    Bytes,
    Macs,
    Params,
    PeakMemory,
    count_bytes,
    count_macs,
    count_params,
    peak_memory,
)
from rlprune.budgets.protected import ClassLoss, protected
from rlprune.budgets.sequences import KvBytes, TokenMs, kv_bytes
from rlprune.budgets.sets import BudgetSets, sets
from rlprune.budgets.stored import Nonzeros, StoredBytes, count_nonzeros, stored_bytes

__all__ = [
    "METRICS",
    "Budget",
    "BudgetSets",
    "Bytes",
    "ClassLoss",
    "Device",
    "DiskBytes",
    "Energy",
    "Estimate",
    "KvBytes",
    "Latency",
    "LatencyMeter",
    "LatencySettings",
    "Limit",
    "Macs",
    "Metric",
    "Nonzeros",
    "OnnxLatency",
    "Params",
    "PeakMemory",
    "ResolvedBudget",
    "StoredBytes",
    "TokenMs",
    "count_bytes",
    "count_macs",
    "count_nonzeros",
    "count_params",
    "disk_bytes",
    "from_config",
    "kv_bytes",
    "parse",
    "peak_memory",
    "protected",
    "reported",
    "resolve",
    "sets",
    "stored_bytes",
]
