"""Options of the gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rlprune.gates.kinds import KINDS
from rlprune.gates.network import PLACES
from rlprune.search.agent import AgentConfig

UNITS = ("both", "learned", "importance")


@dataclass(frozen=True)
class GatesConfig(AgentConfig):
    """Options of learnable gates.

    Attributes:
        kind: how gates follow from what is learned: ``hard_concrete``, ``scaling`` or ``top_k``;
            as a control ``random``, which learns how many units to keep, not which.
        place: what gates scale: ``reads``, the weights that read a unit, or as a control
            ``writes``, those that make it, where normalisation cancels them.
        units: which units a plan keeps: ``learned``, those whose gates are most open,
            ``importance``, or ``both``, one plan of each.
        width: whether units have gates; without, all groups keep what they have.
        depth: whether branches have gates, where the space decides about them.
        steps: gradient steps.
        learning_rate: Adam step size of the gates.
        weight_rate: Adam step size of the network's weights while gates are learned; 0 freezes
            them. Candidates are scored with the weights of the dense network all the same; the
            network that is handed over has the trained ones where they are better.
        labels: share of the task's loss on the labels in the loss, besides agreement with the
            dense network's answers.
        ramp: share of the steps over which limits fall from the dense network's costs to their own.
        snapshots: how often along the training plans are made and evaluated.
        spread: standard deviation of the logarithms of keep ratios, by which the plans that spend
            the remaining evaluations differ from the best one.
        start: a plan that the gates start from, and that is evaluated on the budgets first: its
            JSON file, or the folder of a run, whatever its agent.
        kp: proportional gain of the multipliers.
        ki: integral gain of the multipliers.
        kd: derivative gain of the multipliers.
        max_multiplier: upper bound of each multiplier.
    """

    name: ClassVar[str] = "gates"
    kind: str = "hard_concrete"
    place: str = "reads"
    units: str = "both"
    width: bool = True
    depth: bool = True
    steps: int = 400
    learning_rate: float = 0.05
    weight_rate: float = 0.0
    labels: float = 0.0
    ramp: float = 0.5
    snapshots: int = 6
    spread: float = 0.1
    start: str | None = None
    kp: float = 2.0
    ki: float = 0.1
    kd: float = 0.0
    max_multiplier: float = 50.0

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        KINDS.find(self.kind)
        self.require(self.units in UNITS, "units", ", ".join(UNITS))
        self.require(self.place in PLACES, "place", " or ".join(PLACES))
        self.require(self.width or self.depth, "width", "true where depth is false")
        for field in ("steps", "snapshots"):
            self.require(getattr(self, field) >= 1, field, "at least 1")
        for field in ("learning_rate", "spread", "max_multiplier"):
            self.require(getattr(self, field) > 0, field, "positive")
        for field in ("weight_rate", "kp", "ki", "kd"):
            self.require(getattr(self, field) >= 0, field, "not negative")
        self.require(0 <= self.labels <= 1, "labels", "in [0, 1]")
        self.require(0 <= self.ramp < 1, "ramp", "in [0, 1)")
