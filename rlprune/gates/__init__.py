"""Learnable gates on every unit and every branch: another way to plans under the same budgets.

:class:`GatedNetwork` puts gates on a network, :data:`KINDS` says how a gate follows from what is
learned, :class:`SoftCosts` what half-open gates cost, and :class:`GatesAgent` (``agent="gates"``)
makes plans of them. :func:`shorten` learns which blocks of a network without shortcuts can go.
"""

from __future__ import annotations

from rlprune.gates.agent import GatesAgent
from rlprune.gates.bypass import Bypass, Shortcut, bypassed, folded
from rlprune.gates.config import GatesConfig
from rlprune.gates.costs import SoftCosts
from rlprune.gates.kinds import KINDS, Gates
from rlprune.gates.network import GatedNetwork
from rlprune.gates.shortening import Shortened, shorten
from rlprune.gates.training import GateTraining, Snapshot

__all__ = [
    "KINDS",
    "Bypass",
    "GateTraining",
    "GatedNetwork",
    "Gates",
    "GatesAgent",
    "GatesConfig",
    "Shortcut",
    "Shortened",
    "Snapshot",
    "SoftCosts",
    "bypassed",
    "folded",
    "shorten",
]
