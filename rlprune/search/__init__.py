"""Search for keep ratios: agents that act in KeepRatio-v0, all on one ledger.

``search(problem, agent=...)`` runs one of :data:`AGENTS` and returns the best plan that meets
every budget.
"""

from __future__ import annotations

from rlprune.search.agent import AGENTS, Agent, AgentConfig, create_agent
from rlprune.search.archive import Archive
from rlprune.search.finalists import Finalist
from rlprune.search.front import FrontPoint, search_front
from rlprune.search.runner import SearchResult, search
from rlprune.search.session import Outcome, Session

__all__ = [
    "AGENTS",
    "Agent",
    "AgentConfig",
    "Archive",
    "Finalist",
    "FrontPoint",
    "Outcome",
    "SearchResult",
    "Session",
    "create_agent",
    "search",
    "search_front",
]
