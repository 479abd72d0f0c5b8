"""rlprune: fit a trained PyTorch network into budgets with constrained reinforcement learning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rlprune.version import VERSION

if TYPE_CHECKING:
    from rlprune import analysis, budgets, callbacks, importance, models, tasks
    from rlprune.budgets import Budget
    from rlprune.compaction import discover
    from rlprune.data import Data
    from rlprune.errors import RlpruneError
    from rlprune.integrations import hf
    from rlprune.oneshot import compact, mask, merge
    from rlprune.plan import Plan
    from rlprune.run import PruneResult, load, prune
    from rlprune.sparse import load_sparse, save_sparse, sparsify
    from rlprune.structure import Group, Groups
    from rlprune.training import FineTune

__all__ = [
    "Budget",
    "Data",
    "FineTune",
    "Group",
    "Groups",
    "Plan",
    "PruneResult",
    "RlpruneError",
    "analysis",
    "budgets",
    "callbacks",
    "compact",
    "discover",
    "hf",
    "importance",
    "load",
    "load_sparse",
    "mask",
    "merge",
    "models",
    "prune",
    "save_sparse",
    "sparsify",
    "tasks",
]

_HOMES = {
    "Budget": "rlprune.budgets",
    "Data": "rlprune.data",
    "FineTune": "rlprune.training",
    "Group": "rlprune.structure",
    "Groups": "rlprune.structure",
    "Plan": "rlprune.plan",
    "PruneResult": "rlprune.run",
    "RlpruneError": "rlprune.errors",
    "compact": "rlprune.oneshot",
    "discover": "rlprune.compaction",
    "load": "rlprune.run",
    "load_sparse": "rlprune.sparse",
    "mask": "rlprune.oneshot",
    "merge": "rlprune.oneshot",
    "prune": "rlprune.run",
    "save_sparse": "rlprune.sparse",
    "sparsify": "rlprune.sparse",
}
_MODULES = {
    "analysis": "rlprune.analysis",
    "budgets": "rlprune.budgets",
    "callbacks": "rlprune.callbacks",
    "hf": "rlprune.integrations.hf",
    "importance": "rlprune.importance",
    "models": "rlprune.models",
    "tasks": "rlprune.tasks",
}

__version__ = VERSION


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import rlprune`` stays fast."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(_MODULES[name])
    raise AttributeError(f"module 'rlprune' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
