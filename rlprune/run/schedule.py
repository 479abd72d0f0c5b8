"""How pruning is spread over time."""

from __future__ import annotations

from dataclasses import dataclass

from rlprune.errors import ConfigError
from rlprune.options import check_types, hint

NAMES = ("oneshot", "iterative")
STEPS = ("geometric", "linear")


@dataclass(frozen=True)
class ScheduleSpec:
    """One search for the whole budget, or rounds of searching, compacting and fine-tuning.

    Attributes:
        name: ``oneshot``, or ``iterative``: after each round the smaller network is fine-tuned, and
            the next one scores its units anew. Evaluations and epochs of fine-tuning are those of
            the whole run, shared out among the rounds.
        rounds: Rounds of an iterative schedule, at least 2.
        steps: How the limits get there: every round takes the same share of what is left
            (``geometric``), or the same amount (``linear``).
    """

    name: str = "oneshot"
    rounds: int = 4
    steps: str = "geometric"

    def __post_init__(self) -> None:
        """Check every field."""
        check_types(self, "schedule")
        for value, valid, field in ((self.name, NAMES, "name"), (self.steps, STEPS, "steps")):
            if value not in valid:
                raise ConfigError(f"schedule.{field}={value!r}: {hint(value, valid)}")
        if self.rounds < 2:
            raise ConfigError(f"schedule.rounds must be at least 2, got {self.rounds}")

    @property
    def iterative(self) -> bool:
        """Whether there are rounds."""
        return self.name == "iterative"

    def limit(self, dense: float, limit: float, number: int) -> float:
        """The limit of one round.

        Args:
            dense: The cost of the network that is pruned first.
            limit: What the last round has to meet.
            number: The round, from 1.
        """
        if number == self.rounds or limit >= dense:
            return limit
        share = number / self.rounds
        if self.steps == "linear":
            return dense + (limit - dense) * share
        return float(dense * (limit / dense) ** share)

    def share(self, total: int, number: int) -> int:
        """Part of a whole number that one round gets; the last one gets what is left over."""
        each = total // self.rounds
        return total - each * (self.rounds - 1) if number == self.rounds else each
