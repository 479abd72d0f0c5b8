"""Constrained optimisers of other libraries as agents, for comparison (``rlprune[rivals]``).

Each asks and tells like any agent, around the same anchor, and either has its proposals projected
onto the budgets as every agent has (``project: true``) or meets the budgets in its own way
(``project: false``). By dotted path::

    rlprune bench search 'bench.agents=[ppo_lagrangian, rlprune.bench.rivals.Scbo]'
"""

from __future__ import annotations

from rlprune.bench.rivals.base import Rival, RivalConfig
from rlprune.bench.rivals.cma_es import CmaEs
from rlprune.bench.rivals.isres import Isres
from rlprune.bench.rivals.optuna_samplers import OptunaGp, OptunaTpe
from rlprune.bench.rivals.scbo import Scbo

__all__ = ["CmaEs", "Isres", "OptunaGp", "OptunaTpe", "Rival", "RivalConfig", "Scbo"]
