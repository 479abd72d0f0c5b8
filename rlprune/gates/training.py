"""Gradient descent on gates, dual ascent on the multipliers of the budgets."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rlprune.batches import Batch
from rlprune.compensation import batch_statistics
from rlprune.errors import CheckpointError, ConfigError, TrainingError
from rlprune.gates.config import GatesConfig
from rlprune.gates.costs import SoftCosts
from rlprune.gates.kinds import KINDS
from rlprune.gates.network import GatedNetwork
from rlprune.identity import digest
from rlprune.inputs import to_device
from rlprune.modes import evaluating
from rlprune.progress import track
from rlprune.search.ppo_lagrangian.multiplier import PIDMultiplier
from rlprune.tasks import Rows
from rlprune.training.record import Checkpoints

if TYPE_CHECKING:
    from rlprune.plan import Plan
    from rlprune.problem import Problem
    from rlprune.space.costs import CostModel

logger = logging.getLogger(__name__)

_TEMPERATURE = 1.0
_CHECKPOINTS = 20
_AHEAD = 2.0
_REMEMBERED = 1 << 24
"""Numbers of the dense network's answers that are kept; beyond it they are computed anew."""


@dataclass(frozen=True)
class Snapshot:
    """Gates at one moment of their training.

    Attributes:
        step: steps taken.
        ratios: ``[n]`` keep ratios of the space's decisions.
        scores: order of every prunable group's units, ``[width]`` each.
        values: ``[gates]`` how far every gate is open, in [0, 1].
        loss: mean loss since the last snapshot.
        costs: ``[m]`` expected costs over the limits.
        multipliers: ``[m]``.
        seconds: processor seconds spent so far on training.
    """

    step: int
    ratios: np.ndarray
    scores: dict[str, Tensor]
    values: Tensor
    loss: float
    costs: tuple[float, ...]
    multipliers: tuple[float, ...]
    seconds: float

    def packed(self) -> dict[str, Any]:
        """As plain values and tensors."""
        return {**vars(self), "ratios": torch.from_numpy(self.ratios)}

    @staticmethod
    def unpacked(fields: dict[str, Any]) -> Snapshot:
        """The inverse of :meth:`packed`."""
        return Snapshot(**{**fields, "ratios": fields["ratios"].numpy()})


@dataclass
class _Place:
    """How far a training has come."""

    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)


class GateTraining:
    """Learns gates that keep the dense network's answers while expected costs meet the limits.

    The Lagrangian ``(loss + sum_k lambda_k v_k) / (1 + sum_k lambda_k)`` of the violations
    ``v = cost / limit - 1`` is descended in the gates, and ascended in the multipliers by their PID
    controllers (Stooke, Achiam, Abbeel, ICML 2020, whose section 6.3 divides as well). The limits
    fall from the dense network's costs to their own along a cubic, so gates close one by one.

    Args:
        problem: budgets, space, samples and task.
        costs: its cost model.
        config: options.
        seed: of the order of the samples and of drawn gates.
        start: a plan whose units are ahead of the others; importance decides where it is None.
        progress: draw a bar; None draws it on a terminal.

    Raises:
        ConfigError: the problem holds no samples to learn from.
    """

    def __init__(
        self,
        problem: Problem,
        costs: CostModel,
        config: GatesConfig,
        seed: int,
        start: Plan | None = None,
        progress: bool | None = None,
    ) -> None:
        samples = problem.samples
        if not samples or problem.task is None:
            raise ConfigError(
                "agent 'gates' learns from training samples, and the problem has none: give "
                "data=rlprune.Data(...)"
            )
        if config.labels and any(labels is None for _, labels in samples):
            raise ConfigError(
                f"agent 'gates': labels={config.labels} needs samples with labels; set it to 0"
            )
        self._config, self._space, self._task = config, problem.space, problem.task
        self._groups = groups = problem.groups
        self._progress = progress
        self._generator = torch.Generator().manual_seed(seed)
        depth = problem.space.depth
        self.network = GatedNetwork(
            groups, depth=depth, trained=config.weight_rate > 0, place=config.place
        )
        parameter = next(groups.model.parameters())
        self._device = parameter.device
        self._samples = [
            (to_device(x, self._device), None if y is None else y.to(self._device))
            for x, y in samples
        ]
        widths = [g.width for g in groups.prunable] + [1] * len(self.network.branches)
        blocks = torch.arange(len(widths)).repeat_interleave(torch.tensor(widths))
        if start is None:
            ranks = [_standing(problem.space.scores[g.name]) for g in groups.prunable]
            prior = torch.cat([*ranks, torch.zeros(len(self.network.branches))])
        else:
            prior = _AHEAD * (2.0 * self.network.values(start) - 1.0)
        self.gates = KINDS.find(config.kind)(blocks.to(self._device), prior.to(self._device))
        counts = torch.tensor([self.network.units, len(self.network.branches)])
        open_ = torch.tensor([not config.width, not config.depth]).repeat_interleave(counts)
        self._open = open_.to(self._device)
        limits = [budget.limit for budget in problem.budgets]
        decisions = [decision.name for decision in problem.space.decisions]
        causes = [config, seed, start, groups.model, samples, problem.budgets, limits, decisions]
        self._identity = {"gates": digest(causes)}
        self._folder = problem.folder
        self._blocks = len(widths)
        self._least = torch.tensor([float(g.legal_widths()[0]) for g in groups.prunable])
        self._costs = SoftCosts(problem, costs, depth=depth)
        self._start = np.maximum(costs.dense / costs.limits, 1.0)
        self._known: dict[int, Rows] = {}
        self.multipliers = [
            PIDMultiplier(config.kp, config.ki, config.kd, 0.0, config.max_multiplier)
            for _ in problem.budgets
        ]

    def run(self, snapshots: int) -> Iterator[Snapshot]:
        """Train, and stop ``snapshots`` times at equal distances, the last time at the end.

        Beside the problem's store a checkpoint is kept. A training that was interrupted gives the
        snapshots it had given again and goes on where it was.
        """
        c = self._config
        sets = [{"params": list(self.gates.parameters()), "lr": c.learning_rate}]
        if c.weight_rate:
            trained = [p for p in self.network.parameters() if p.requires_grad]
            sets.append({"params": trained, "lr": c.weight_rate})
        optimizer = torch.optim.Adam(sets)
        stops = {round(c.steps * (k + 1) / snapshots) for k in range(snapshots)}
        every = max(1, c.steps // _CHECKPOINTS)
        record = self._recorder(snapshots)
        at = self._restored(record, optimizer)
        yield from at.snapshots
        steps = range(at.step + 1, c.steps + 1)
        for step in track(steps, "learning gates", show=self._progress):
            started = time.process_time()
            if not at.order:
                drawn = torch.randperm(len(self._samples), generator=self._generator)
                at.order = drawn.tolist()
            loss, costs = self._step(optimizer, at.order.pop(), (step - 1) / c.steps)
            at.losses.append(loss)
            at.step, at.seconds = step, at.seconds + time.process_time() - started
            if step in stops:
                at.snapshots.append(self._snapshot(step, at.losses, costs, at.seconds))
                at.losses = []
            if step in stops or step % every == 0:
                record.save(self._state(at, optimizer))
            if step in stops:
                yield at.snapshots[-1]

    def weights(self) -> dict[str, Tensor] | None:
        """State dict of the network as trained, its gates folded in; None where it was frozen."""
        if not self._config.weight_rate:
            return None
        self.gates.anneal(1.0)
        with torch.no_grad():
            self.network.set(torch.where(self._open, 1.0, self.gates.settled()))
            return self.network.folded()

    def _recorder(self, snapshots: int) -> Checkpoints:
        identity = {**self._identity, "snapshots": str(snapshots)}
        if self._folder is None:
            return Checkpoints(None, identity)
        return Checkpoints(self._folder / f"gates-{digest(identity)[:12]}", identity)

    def _state(self, at: _Place, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return {
            "place": {**vars(at), "snapshots": [snapshot.packed() for snapshot in at.snapshots]},
            "gates": self.gates.state_dict(),
            "optimizer": optimizer.state_dict(),
            "weights": self.network.network.state_dict() if self._config.weight_rate else None,
            "multipliers": [multiplier.state() for multiplier in self.multipliers],
            "generator": self._generator.get_state(),
            "tangents": self._costs.state(),
        }

    def _restored(self, record: Checkpoints, optimizer: torch.optim.Optimizer) -> _Place:
        """Where an interrupted training was, put back as it was; the beginning without one."""
        try:
            state = record.load()
        except (CheckpointError, TrainingError) as error:
            logger.warning("gates are learned from the start: %s", error)
            state = None
        if state is None:
            return _Place()
        self.gates.load_state_dict(state["gates"])
        optimizer.load_state_dict(state["optimizer"])
        if state["weights"] is not None:
            self.network.network.load_state_dict(state["weights"])
        for multiplier, known in zip(self.multipliers, state["multipliers"], strict=True):
            multiplier.restore(known)
        self._generator.set_state(state["generator"])
        self._costs.restore(state["tangents"])
        place = state["place"]
        logger.info("learning gates goes on after step %d", place["step"])
        return _Place(**{**place, "snapshots": [Snapshot.unpacked(s) for s in place["snapshots"]]})

    def _step(
        self, optimizer: torch.optim.Optimizer, place: int, progress: float
    ) -> tuple[float, tuple[float, ...]]:
        c = self._config
        self.gates.anneal(progress)
        left = max(1.0 - progress / c.ramp, 0.0) if c.ramp else 0.0
        targets = 1.0 + (self._start - 1.0) * left**3
        with torch.enable_grad():
            drawn = torch.where(self._open, 1.0, self.gates.sample(self._generator))
            loss = self._loss(place, drawn)
            costs = self._costs(*self._expected())
            violations = costs / torch.from_numpy(targets).to(costs) - 1.0
            lambdas = [
                multiplier.update(float(violation))
                for multiplier, violation in zip(self.multipliers, violations.detach(), strict=True)
            ]
            weights = torch.tensor(lambdas, dtype=costs.dtype, device=costs.device)
            total = (loss + (weights * violations).sum()) / (1.0 + weights.sum())
            optimizer.zero_grad()
            total.backward()
        optimizer.step()
        return float(loss.detach()), tuple(costs.tolist())

    def _loss(self, place: int, values: Tensor) -> Tensor:
        """How far the gated network's answers are from the dense network's, on one batch."""
        inputs, labels = batch = self._samples[place]
        teacher = self._dense(place, batch)
        self.network.set(values)
        with batch_statistics(self.network.network):
            answer = self._task.answer(self.network, inputs)
        student = self._task.rows(answer, labels, inputs)
        share = self._config.labels
        loss = self._task.distillation(student, teacher, _TEMPERATURE)
        return (1 - share) * loss + share * self._task.loss(student) if share else loss

    def _dense(self, place: int, batch: Batch) -> Rows:
        if place in self._known:
            return self._known[place]
        inputs, labels = batch
        model = self._groups.model
        with evaluating(model), torch.no_grad():
            rows = self._task.rows(self._task.answer(model, inputs), labels, inputs)
        if rows.answers.numel() * len(self._samples) <= _REMEMBERED:
            self._known[place] = rows
        return rows

    def _expected(self) -> tuple[Tensor, Tensor]:
        """Expected widths ``[groups]``, no less than the least legal ones, and open branches."""
        expected = self._opened()
        sums = expected.new_zeros(self._blocks).index_add(0, self.gates.blocks, expected)
        groups = len(self._least)
        return torch.maximum(sums[:groups], self._least.to(sums)), sums[groups:]

    def _opened(self) -> Tensor:
        """``[gates]`` how far gates are open; those that are not learned are."""
        return torch.where(self._open, 1.0, self.gates.expected())

    def _snapshot(
        self, step: int, losses: list[float], costs: tuple[float, ...], seconds: float
    ) -> Snapshot:
        self.gates.anneal(step / self._config.steps)
        with torch.no_grad():
            widths, branches = (part.cpu().numpy() for part in self._expected())
            values = self._opened().cpu()
        dense = np.array([group.width for group in self._groups.prunable], dtype=np.float64)
        opened = dict(zip(self.network.branches, branches.tolist(), strict=True))
        ratios = np.empty(len(self._space))
        for at, decision in enumerate(self._space.decisions):
            columns = list(decision.columns)
            if decision.kind == "branch":
                ratios[at] = np.mean([opened[name] for name in decision.branches])
            else:
                ratios[at] = widths[columns].sum() / dense[columns].sum()
        parts = (
            self.gates.scores()
            .cpu()
            .clone()[: self.network.units]
            .split(dense.astype(int).tolist())
        )
        return Snapshot(
            step=step,
            ratios=np.clip(ratios, self._space.lowest, self._space.highest),
            scores={g.name: s for g, s in zip(self._groups.prunable, parts, strict=True)},
            values=values,
            loss=float(np.mean(losses)),
            costs=costs,
            multipliers=tuple(multiplier.value for multiplier in self.multipliers),
            seconds=seconds,
        )


def _standing(scores: Tensor) -> Tensor:
    """Where every unit stands among its group's by importance, from -1 to 1."""
    order = torch.argsort(scores.detach().float().cpu(), stable=True)
    places = torch.empty(len(order))
    places[order] = torch.linspace(-1.0, 1.0, len(order)) if len(order) > 1 else torch.zeros(1)
    return places
