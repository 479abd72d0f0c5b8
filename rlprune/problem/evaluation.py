"""One candidate's result."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Evaluation:
    """What was measured of one candidate.

    Attributes:
        index: Position in the ledger.
        widths: Kept units per prunable group, in execution order.
        quality: Score without fine-tuning, higher is better.
        costs: Budget name -> value.
        violations: Budget name -> ``value / limit - 1``.
        seconds: Wall time of building and scoring the candidate.
        cached: Whether this call was answered from the ledger.
    """

    index: int
    widths: tuple[int, ...]
    quality: float
    costs: dict[str, float]
    violations: dict[str, float]
    seconds: float
    cached: bool = False

    @property
    def feasible(self) -> bool:
        """Whether every budget is met."""
        return all(violation <= 0 for violation in self.violations.values())

    def again(self) -> Evaluation:
        """The same evaluation, marked as answered from the ledger."""
        return replace(self, cached=True)
