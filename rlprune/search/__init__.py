"""Search for plans: agents that are asked for plans and told what they are worth, on one ledger.

``search(problem, agent=...)`` runs one of :data:`AGENTS` and returns the best plan that meets
every budget.
"""

from __future__ import annotations

from rlprune.search.agent import AGENTS, Agent, AgentConfig, create_agent, resolve_agent
from rlprune.search.archive import Archive
from rlprune.search.finalists import Finalist
from rlprune.search.front import FrontPoint, search_front
from rlprune.search.isolation import one_thread
from rlprune.search.runner import SearchResult, search
from rlprune.search.session import Session

__all__ = [
    "AGENTS",
    "Agent",
    "AgentConfig",
    "Archive",
    "Finalist",
    "FrontPoint",
    "SearchResult",
    "Session",
    "create_agent",
    "one_thread",
    "resolve_agent",
    "search",
    "search_front",
]
