"""Gates as an agent: trained on samples, turned into plans, evaluated like anyone's."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlprune.files import write_tensors
from rlprune.gates.config import GatesConfig
from rlprune.gates.training import GateTraining, Snapshot
from rlprune.plan import Plan
from rlprune.search.agent import Agent
from rlprune.search.session import Session
from rlprune.space import onto_budgets

logger = logging.getLogger(__name__)

_WEIGHTS_FILE = "weights.safetensors"
_BINS = 10
_FLIPS = 0.5
"""Branches that change sides in a plan near the best one, on average."""


class GatesAgent(Agent):
    """Learns gates under the budgets, and evaluates the plans that they stand for.

    Every snapshot of the training gives plans of its keep ratios, projected onto the budgets: one
    keeps the units whose gates are most open, the other those of highest importance. What
    evaluations remain go to plans around the best one so far.

    Training spends no evaluation. What it costs is in the history: ``gates/core_seconds``, and
    ``gates/evaluations``, how many evaluations take as long.
    """

    config_class = GatesConfig
    config: GatesConfig
    starts_from_plan = True

    def run(self, session: Session) -> None:
        """Trains the gates, then searches around them until the session is done."""
        self.start(session)
        self._units: dict[Plan, Mapping[str, Tensor] | None] = {}
        if session.done:
            return
        start = None if self.config.start is None else self._begin(self.config.start)
        if session.done:
            return
        pairs = max(session.remaining // 2, 1)
        training = GateTraining(
            session.problem, session.codec.costs, self.config, session.seed, start
        )
        last: Snapshot | None = None
        for snapshot in training.run(min(self.config.snapshots, pairs)):
            self._report(snapshot)
            session.evaluate([self._plan(snapshot.ratios, o) for o in self._orders(snapshot)])
            last = snapshot
        self.weights = training.weights()
        if last is not None:
            self._around(last)

    def _begin(self, file: str) -> Plan:
        """Reads the plan to start from, and evaluates it, on the budgets where it breaks one."""
        plan = Plan.read(file)
        session, space = self.session, self.session.space
        ratios = space.ratios(plan)
        if max(session.problem.violations(plan).values()) <= 0:
            session.evaluate([plan])
            return plan
        choice = onto_budgets(session.problem, ratios, session.codec.costs)
        session.evaluate([space.adjusted(plan, choice)])
        return plan

    def _plan(self, ratios: np.ndarray, units: Mapping[str, Tensor] | None) -> Plan:
        """The plan of some ratios within the budgets; ``units`` orders a group's, or importance."""
        session = self.session
        choice = onto_budgets(session.problem, ratios, session.codec.costs)
        plan = session.space.plan(choice)
        if units is not None:
            plan = Plan.from_widths(session.space.groups, plan.widths, units)
        self._units.setdefault(plan, units)
        return plan

    def _around(self, last: Snapshot) -> None:
        """Spends what remains on plans near the best one."""
        session, space = self.session, self.session.space
        while not session.done:
            best = session.archive.best
            known = best is not None and best.plan in self._units
            center = space.ratios(best.plan) if best is not None and known else last.ratios
            units = self._units[best.plan] if best is not None and known else self._orders(last)[0]
            noise = session.rng.normal(0.0, self.config.spread, len(space))
            ratios = np.clip(center * np.exp(noise), space.lowest, space.highest)
            flips = session.rng.random(len(space)) < _FLIPS / max(int(space.branches.sum()), 1)
            ratios = np.where(space.branches, np.where(flips, 1.0 - center, center), ratios)
            session.evaluate([self._plan(ratios, units)])

    def _orders(self, snapshot: Snapshot) -> list[Mapping[str, Tensor] | None]:
        """The orders of the units that plans are made with; None for that of importance."""
        chosen: dict[str, list[Mapping[str, Tensor] | None]] = {
            "learned": [snapshot.scores], "importance": [None]
        }  # fmt: skip
        return chosen.get(self.config.units, [snapshot.scores, None])

    def _report(self, snapshot: Snapshot) -> None:
        session = self.session
        for at, name in enumerate(session.budgets):
            limit = float(session.codec.costs.limits[at])
            session.log(f"constraint/{name}/value", snapshot.costs[at] * limit)
            session.log(f"constraint/{name}/limit", limit)
            session.log(f"constraint/{name}/lambda", snapshot.multipliers[at])
        session.log("gates/step", float(snapshot.step))
        session.log("gates/loss", snapshot.loss)
        session.log("gates/open", float(snapshot.values.mean()))
        session.log("gates/core_seconds", snapshot.seconds)
        took = float(np.mean([evaluation.seconds for evaluation in session.ledger]))
        session.log("gates/evaluations", snapshot.seconds / max(took, 1e-9))
        self.state = {
            "multipliers": dict(zip(session.budgets, snapshot.multipliers, strict=True)),
            "core_seconds": snapshot.seconds,
            "snapshots": [*self.state.get("snapshots", []), self._row(snapshot)],
        }
        logger.info(
            "gates at step %d: loss %.4g, %.0f %% open, %.1f core-seconds",
            snapshot.step, snapshot.loss, 100 * float(snapshot.values.mean()), snapshot.seconds,
        )  # fmt: skip

    def _row(self, snapshot: Snapshot) -> dict[str, Any]:
        """What a report shows of one moment: how far gates are open, by group and by branch."""
        space = self.session.space
        widths = [group.width for group in space.groups.prunable]
        branches = list(space.groups.branches) if space.depth else []
        *groups, rest = snapshot.values.split([*widths, len(branches)])
        return {
            "step": snapshot.step,
            "histogram": torch.histc(snapshot.values, _BINS, 0.0, 1.0).int().tolist(),
            "groups": {
                group.name: float(values.mean())
                for group, values in zip(space.groups.prunable, groups, strict=True)
            },
            "branches": dict(zip(branches, rest.tolist(), strict=True)),
        }

    def save(self, folder: str | Path) -> None:
        """Writes options, what the gates did, and the network's weights where they were trained."""
        super().save(folder)
        if self.weights is not None:
            write_tensors(Path(folder) / _WEIGHTS_FILE, self.weights)

    def identity(self) -> dict[str, Any]:
        """Kind and options; nothing learned before is taken up."""
        start = self.config.start
        told = {**super().identity(), "state": {}}
        return told if start is None else {**told, "start": Plan.read(start).digest}
