"""Learnable gates on every unit and every branch: another way to plans under the same budgets.

:class:`GatedNetwork` puts gates on a network, :data:`KINDS` says how a gate follows from what is
learned, :class:`SoftCosts` what half-open gates cost, and :class:`GatesAgent` (``agent="gates"``)
makes plans of them.
"""

from __future__ import annotations

from rlprune.gates.agent import GatesAgent
from rlprune.gates.config import GatesConfig
from rlprune.gates.costs import SoftCosts
from rlprune.gates.kinds import KINDS, Gates
from rlprune.gates.network import GatedNetwork
from rlprune.gates.training import GateTraining, Snapshot

__all__ = [
    "KINDS",
    "GateTraining",
    "GatedNetwork",
    "Gates",
    "GatesAgent",
    "GatesConfig",
    "Snapshot",
    "SoftCosts",
]
