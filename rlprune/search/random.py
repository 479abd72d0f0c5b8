"""Independent uniform actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rlprune.search.agent import Agent, AgentConfig

if TYPE_CHECKING:
    from rlprune.search.session import Session


@dataclass(frozen=True)
class RandomConfig(AgentConfig):
    """Random search draws every action from one interval.

    Attributes:
        reach: actions are uniform in [-reach, reach]; 1 is the whole action space.
    """

    name: ClassVar[str] = "random"
    reach: float = 1.0

    def __post_init__(self) -> None:
        """Checks the interval."""
        super().__post_init__()
        self.require(0 < self.reach <= 1, "reach", "in (0, 1]")


class RandomAgent(Agent):
    """Samples plans independently; the floor that every agent must beat."""

    config_class = RandomConfig
    config: RandomConfig

    def run(self, session: Session) -> None:
        """Plays random episodes."""
        reach = self.config.reach
        while not session.done:
            session.play(session.rng.uniform(-reach, reach, session.decisions))
