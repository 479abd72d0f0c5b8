"""How pruning is spread over time."""

from __future__ import annotations

from dataclasses import dataclass

from rlprune.errors import ConfigError
from rlprune.options import check_types, hint

NAMES = ("oneshot", "iterative", "gradual")
STEPS = ("geometric", "linear")


@dataclass(frozen=True)
class ScheduleSpec:
    r"""How a network gets from its dense size to the one that is asked for.

    Attributes:
        name: ``oneshot``: a search for the whole budget, then fine-tuning. ``iterative``: after
            each round of searching and compacting the smaller network is fine-tuned, and the next
            round scores its units anew. ``gradual``: one search, and what its plan removes goes a
            little at a time while the network is fine-tuned, fast at first and slower as less is
            left (Zhu and Gupta, 2017):
            :math:`s_n = s (1 - (1 - n / N)^3)` after step ``n`` of ``N``. Evaluations and epochs of
            fine-tuning are those of the whole run, shared out among the rounds.
        rounds: Rounds of an iterative schedule, steps of a gradual one; at least 2.
        steps: How the limits of an iterative schedule get there: every round takes the same share
            of what is left (``geometric``), or the same amount (``linear``).
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
        """Whether every round searches."""
        return self.name == "iterative"

    @property
    def gradual(self) -> bool:
        """Whether units go while the network is fine-tuned."""
        return self.name == "gradual"

    def limit(self, dense: float, limit: float, number: int) -> float:
        """What is left after one round.

        Args:
            dense: The cost, or width, of the network that is pruned first.
            limit: What the last round has to meet.
            number: The round, from 1.
        """
        if number == self.rounds or limit >= dense:
            return limit
        share = number / self.rounds
        if self.gradual:
            return limit + (dense - limit) * (1 - share) ** 3
        if self.steps == "linear":
            return dense + (limit - dense) * share
        return float(dense * (limit / dense) ** share)

    def share(self, total: int, number: int) -> int:
        """Part of a whole number that one round gets; the last one gets what is left over."""
        each = total // self.rounds
        return total - each * (self.rounds - 1) if number == self.rounds else each
