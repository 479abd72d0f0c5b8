"""Independent uniform actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rlprune.search.agent import Agent, AgentConfig

if TYPE_CHECKING:
    from rlprune.plan import Plan


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

    def ask(self, n: int) -> Sequence[Plan]:
        """``n`` random plans."""
        session, reach = self.session, self.config.reach
        drawn = (session.rng.uniform(-reach, reach, len(session.space)) for _ in range(n))
        return [session.codec.plan(actions) for actions in drawn]
