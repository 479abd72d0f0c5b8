"""Runs: prune a network in stages that survive interruption, and load the result.

A :class:`RunSpec` says what is asked for, :func:`launch` does it; :func:`prune` is both in one call
with keyword arguments. A :class:`Job` is the specification with its network and data, which is
what benchmarks open to look inside.
"""

from __future__ import annotations

from rlprune.run.changes import RUN_FILE
from rlprune.run.config import compose
from rlprune.run.dense import dense_from_config, dense_network, factory_of
from rlprune.run.example import load_example
from rlprune.run.folder import RunFolder
from rlprune.run.job import Job
from rlprune.run.loading import load
from rlprune.run.placing import place, resolve_device, use_threads
from rlprune.run.pruning import launch, prune
from rlprune.run.reachable import require_measurable
from rlprune.run.result import PruneResult
from rlprune.run.rounds import composed
from rlprune.run.schedule import ScheduleSpec
from rlprune.run.spec import QualitySpec, RunSpec, StructureSpec, TimingSpec
from rlprune.run.verify import over_limit, values_of

__all__ = [
    "RUN_FILE",
    "Job",
    "PruneResult",
    "QualitySpec",
    "RunFolder",
    "RunSpec",
    "ScheduleSpec",
    "StructureSpec",
    "TimingSpec",
    "compose",
    "composed",
    "dense_from_config",
    "dense_network",
    "factory_of",
    "launch",
    "load",
    "load_example",
    "over_limit",
    "place",
    "prune",
    "require_measurable",
    "resolve_device",
    "use_threads",
    "values_of",
]
