"""One candidate's result."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rlprune.plan import Plan


@dataclass(frozen=True)
class Evaluation:
    """What was measured of one candidate.

    Attributes:
        index: Position in the ledger.
        plan: What it keeps.
        quality: Score without fine-tuning, higher is better.
        costs: Budget name -> value.
        violations: Budget name -> ``value / limit - 1``.
        seconds: Wall time of building and scoring the candidate.
        cached: Whether this call was answered from the ledger.
    """

    index: int
    plan: Plan
    quality: float
    costs: dict[str, float]
    violations: dict[str, float]
    seconds: float
    cached: bool = False

    @property
    def feasible(self) -> bool:
        """Whether every budget is met."""
        return all(violation <= 0 for violation in self.violations.values())

    def reward(self, reference: Evaluation) -> float:
        """Gain in quality over a reference, relative to it: 0 for the reference itself."""
        origin = reference.quality
        return float((self.quality - origin) / max(abs(origin), 1e-6))

    def again(self) -> Evaluation:
        """The same evaluation, marked as answered from the ledger."""
        return replace(self, cached=True)
