"""What a run returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from rlprune.plan import Plan


@dataclass(frozen=True)
class PruneResult:
    """A smaller network that meets every budget, and how it came about.

    Attributes:
        model: The pruned network: an ordinary dense module of the class that was given, in eval
            mode. None while the fine-tuning stage has not run.
        plan: Which units of every group were kept.
        costs: Budget name -> value, measured on ``model`` itself.
        quality: The evaluator's score of the plan without fine-tuning, on held-out samples.
        history: One row per unique evaluation of the search.
        report: Content of ``report.json``; empty while the report stage has not run.
        out_dir: The run folder; None when nothing was kept.
        front: With a list of limits, the result of each, loosest first; empty otherwise.
    """

    model: nn.Module | None
    plan: Plan
    costs: dict[str, float]
    quality: float
    history: list[dict[str, float]] = field(repr=False)
    report: dict[str, Any] = field(repr=False)
    out_dir: Path | None
    front: tuple[PruneResult, ...] = field(default=(), repr=False)
