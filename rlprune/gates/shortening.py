"""Fewer blocks under budgets, in networks without shortcuts of their own."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.batches import Batch, as_batches
from rlprune.budgets import ResolvedBudget, resolve
from rlprune.compensation import batch_statistics, recalibrate
from rlprune.errors import ConfigError, InfeasibleBudgetError
from rlprune.gates.bypass import Bypass, bypassed, folded
from rlprune.gates.kinds import KINDS, Gates
from rlprune.inputs import to_device
from rlprune.modes import evaluating
from rlprune.progress import track
from rlprune.search.ppo_lagrangian.multiplier import PIDMultiplier
from rlprune.tasks import Rows, Task

logger = logging.getLogger(__name__)

_KP, _KI, _HIGHEST = 2.0, 0.1, 50.0


@dataclass(frozen=True)
class Shortened:
    """A network with fewer blocks.

    Attributes:
        network: In eval mode; where a block is gone stands a pooling and padding shortcut.
        bypassed: Paths of the blocks that are gone.
        gates: How far the gate of every block was open at the end, in [0, 1].
        costs: Budget name -> value of ``network``.
    """

    network: nn.Module
    bypassed: tuple[str, ...]
    gates: dict[str, float]
    costs: dict[str, float]


def shorten(
    model: nn.Module,
    example_inputs: Any,
    blocks: Sequence[str],
    *,
    budgets: Any,
    data: Any,
    task: Task | None = None,
    kind: str = "hard_concrete",
    steps: int = 300,
    learning_rate: float = 0.05,
    weight_rate: float = 1e-3,
    labels: float = 0.0,
    seed: int = 0,
    progress: bool | None = None,
) -> Shortened:
    """Learn which blocks of a network can be gone around, ``d F(x) + (1 - d) A(x)``.

    For networks whose blocks are not residual; branches that end in an addition are decided on by
    ``rlprune.prune(..., agent="gates", depth=True)``. The result is an ordinary network, to be
    pruned further by :func:`rlprune.prune`. A budget's expected cost is the dense one less what
    every block saves by itself, as measured, times how far its gate is closed; multipliers as in
    :class:`rlprune.gates.GateTraining`. At the end blocks are taken out in the order of their gates
    until every budget is met by measurement.

    Args:
        model: The network; not changed.
        example_inputs: What it is called with.
        blocks: Paths of modules that take a tensor and return one.
        budgets: In any form :func:`rlprune.budgets.parse` reads.
        data: Training samples: a :class:`rlprune.Data`, or what :func:`rlprune.batches.as_batches`
            reads; then ``task`` is needed.
        task: What the samples are; None takes the data's.
        kind: As for :class:`rlprune.gates.GatesConfig`.
        steps: Gradient steps.
        learning_rate: Adam step size of the gates.
        weight_rate: Adam step size of the network's weights; 0 freezes them.
        labels: Share of the loss on the labels, besides agreement with the network as it was.
        seed: Order of the samples and drawn gates.
        progress: Draw a bar; None draws it on a terminal.

    Raises:
        ConfigError: A block cannot be gone around, or there are no samples or no task.
        InfeasibleBudgetError: The budgets are not met without any of the blocks.

    Example:
        >>> short = shorten(vgg, x, ["features.7", "features.10"], budgets={"macs": 0.8}, data=data)
    """
    samples = as_batches(data.calibration(1024) if hasattr(data, "calibration") else data)
    task = task or getattr(data, "task", None)
    if not samples or task is None or not blocks:
        raise ConfigError("shorten needs at least one block, samples and a task")
    network, ways = bypassed(model, example_inputs, blocks)
    device = next(network.parameters()).device
    batches = [(to_device(x, device), None if y is None else y.to(device)) for x, y in samples]
    training = _Training(network, ways, task, batches, _answers(model, task, batches))
    resolved = resolve(budgets, model, example_inputs)
    savings = torch.tensor(
        [[_saving(network, ways, path, b, example_inputs) for b in resolved] for path in ways]
    )
    limits = torch.tensor([budget.limit for budget in resolved])
    costs = torch.tensor([budget.dense for budget in resolved])
    gates = KINDS.find(kind)(torch.arange(len(ways)), torch.zeros(len(ways)))
    groups = [{"params": list(gates.parameters()), "lr": learning_rate}]
    if weight_rate:
        weights = [p for p in network.parameters() if p.requires_grad]
        groups.append({"params": weights, "lr": weight_rate})
    optimizer = torch.optim.Adam(groups)
    multipliers = [PIDMultiplier(_KP, _KI, 0.0, 0.0, _HIGHEST) for _ in resolved]
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    for step in track(range(steps), "learning which blocks to leave out", show=progress):
        gates.anneal(step / steps)
        order = order or torch.randperm(len(batches), generator=generator).tolist()
        with torch.enable_grad():
            loss = training.loss(order.pop(), gates.sample(generator), labels)
            violations = (costs - (1 - gates.expected()) @ savings) / limits - 1
            weighs = torch.tensor(
                [m.update(float(v)) for m, v in zip(multipliers, violations.detach(), strict=True)]
            )
            optimizer.zero_grad()
            ((loss.cpu() + (weighs * violations).sum()) / (1 + weighs.sum())).backward()
        optimizer.step()
    gates.anneal(1.0)
    return _settled(network, ways, gates, resolved, example_inputs, batches)


class _Training:
    """The loss of a network whose blocks are partly gone around."""

    def __init__(
        self,
        network: nn.Module,
        ways: dict[str, Bypass],
        task: Task,
        batches: Sequence[Batch],
        teacher: Sequence[Rows],
    ) -> None:
        self._network, self._ways, self._task = network, ways, task
        self._batches, self._teacher = batches, teacher

    def loss(self, place: int, values: Tensor, labels: float) -> Tensor:
        """Distance from the network as it was on one batch, and what is wrong on its labels."""
        inputs, own = self._batches[place]
        for way, value in zip(self._ways.values(), values, strict=True):
            way.gate = value.to(next(self._network.parameters()).device)
        with batch_statistics(self._network):
            answer = self._task.answer(self._network, inputs)
        student = self._task.rows(answer, own, inputs)
        loss = self._task.distillation(student, self._teacher[place], 1.0)
        return (1 - labels) * loss + labels * self._task.loss(student) if labels else loss


def _answers(model: nn.Module, task: Task, batches: Sequence[Batch]) -> list[Rows]:
    with evaluating(model), torch.no_grad():
        return [task.rows(task.answer(model, x), y, x) for x, y in batches]


def _saving(
    network: nn.Module, ways: dict[str, Bypass], path: str, budget: ResolvedBudget, inputs: Any
) -> float:
    """What a budget's cost falls by without one block."""
    return budget.dense - budget.value(_without(network, ways, [path]), inputs)


def _without(network: nn.Module, ways: dict[str, Bypass], gone: Sequence[str]) -> nn.Module:
    for path, way in ways.items():
        way.gate = torch.tensor(float(path not in gone))
    return folded(network).eval()


def _settled(
    network: nn.Module,
    ways: dict[str, Bypass],
    gates: Gates,
    budgets: Sequence[ResolvedBudget],
    inputs: Any,
    batches: Sequence[Batch],
) -> Shortened:
    """The network without the blocks whose gates are least open, as few as meet the budgets."""
    with torch.no_grad():
        opened = dict(zip(ways, gates.settled().tolist(), strict=True))
        ranked = dict(zip(ways, gates.scores().tolist(), strict=True))
    order = sorted(ways, key=lambda path: (opened[path], ranked[path]))
    for count in range(len(order) + 1):
        short = _without(network, ways, order[:count])
        costs = {budget.name: budget.value(short, inputs) for budget in budgets}
        if all(budget.violation(costs[budget.name]) <= 0 for budget in budgets):
            logger.info("without %s", ", ".join(order[:count]) or "no block")
            recalibrate(short, batches)
            return Shortened(copy.deepcopy(short), tuple(order[:count]), opened, costs)
    broken = [b.name for b in budgets if b.violation(costs[b.name]) > 0]
    raise InfeasibleBudgetError(
        f"without all {len(order)} blocks {', '.join(broken)} is over its limit still: name more "
        "blocks, or prune units with rlprune.prune"
    )
