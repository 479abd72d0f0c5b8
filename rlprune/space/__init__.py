"""The decision space: what a search chooses, and what its choices stand for.

An *action* in [-1, 1] is a place on a scale around an anchor; it stands for a keep *ratio*; the
nearest legal *value* of every decision makes up a *choice*, and a choice is a *plan*.
:class:`Space` knows values, choices and plans; :class:`Codec` adds budgets: the action scale, the
projection onto the budgets, and previews that cost nothing.
"""

from __future__ import annotations

from rlprune.space.allocation import allocate
from rlprune.space.codec import ANCHORS, Codec
from rlprune.space.costs import CostModel
from rlprune.space.decision import Decision, layer_of
from rlprune.space.describe import FEATURES
from rlprune.space.exchange import exchange
from rlprune.space.previews import Previews
from rlprune.space.priced import Priced
from rlprune.space.projection import project, uniform
from rlprune.space.space import Choice, Space
from rlprune.space.verified import onto_budgets, raised

__all__ = [
    "ANCHORS",
    "FEATURES",
    "Choice",
    "Codec",
    "CostModel",
    "Decision",
    "Previews",
    "Priced",
    "Space",
    "allocate",
    "exchange",
    "layer_of",
    "onto_budgets",
    "project",
    "raised",
    "uniform",
]
