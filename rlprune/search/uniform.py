"""The plan that searches begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rlprune.search.agent import Agent, AgentConfig

if TYPE_CHECKING:
    from rlprune.plan import Plan


@dataclass(frozen=True)
class UniformConfig(AgentConfig):
    """The uniform plan; with ``anchor: sensitivity``, the one of least predicted damage."""

    name: ClassVar[str] = "uniform"


class UniformAgent(Agent):
    """Proposes nothing beyond the plan of action 0, with which every search begins."""

    config_class = UniformConfig

    def ask(self, n: int) -> Sequence[Plan]:
        """No plan."""
        return ()
