"""The plan that searches begin with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from rlprune.search.agent import Agent, AgentConfig

if TYPE_CHECKING:
    from rlprune.search.session import Session


@dataclass(frozen=True)
class UniformConfig(AgentConfig):
    """The uniform plan; with ``anchor: sensitivity``, the one of least predicted damage."""

    name: ClassVar[str] = "uniform"


class UniformAgent(Agent):
    """Plays action 0 in every step, once: one evaluation."""

    config_class = UniformConfig

    def run(self, session: Session) -> None:
        """Plays the one episode."""
        session.play(np.zeros(session.decisions))
