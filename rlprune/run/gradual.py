"""Gradual pruning: what a plan removes goes a little at a time while the network is fine-tuned."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.plan import Plan, nearest_legal
from rlprune.run.job import Job
from rlprune.run.schedule import ScheduleSpec
from rlprune.structure import Groups
from rlprune.training import EpochRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A network that was pruned and trained step by step.

    Attributes:
        network: The last network.
        best_epoch: The epoch that it is from.
        history: Rows of all steps, epochs counted on. A step begins with a row for the network
            that was just pruned.
        steps: A row for every step: its number, the units left, its part of the history.
    """

    network: nn.Module
    best_epoch: int
    history: list[EpochRecord]
    steps: list[dict[str, Any]]

    @property
    def flat(self) -> list[dict[str, float]]:
        """The history as one number per column."""
        return [row.flat() for row in self.history]


def train_gradually(job: Job, plan: Plan) -> Trained:
    """Prune the dense network to a plan in steps, and train it after each of them.

    Units go in the order of importance in the dense network. Branches that the plan drops go in
    the last step. Every step is compacted and compensated as a run is; learning rates are those
    of one training. What is done is kept in ``finetune/``.

    Args:
        job: The run.
        plan: What is kept at the end.
    """
    from rlprune.problem import calibration_of, unit_scores
    from rlprune.training import Part, finetune

    schedule, recipe, data = job.spec.schedule, job.recipe, job.data
    assert recipe is not None
    assert data is not None
    samples = calibration_of(data, job.spec.evaluator.calibration_images)
    scores = unit_scores(
        job.groups, job.spec.importance, samples, data.task, job.spec.seed, job.folder.path
    )
    network, before, done, best = job.dense, Plan.dense_plan(job.groups), 0, 0
    history: list[EpochRecord] = []
    steps: list[dict[str, Any]] = []
    for number in range(1, schedule.rounds + 1):
        after = between(job.groups, plan, scores, schedule, number)
        log.info("step %d/%d: %r", number, schedule.rounds, after)
        part = replace(job, dense=network, asked=replace(job.asked, schedule=ScheduleSpec()))
        network, before = part.compacted(relative(before, after)), after
        epochs = schedule.share(recipe.epochs, number)
        last = number == schedule.rounds
        trained = finetune(
            network,
            job.dense,
            data,
            replace(recipe, epochs=epochs, keep=recipe.keep if last else "last"),
            seed=job.spec.seed,
            checkpoint_dir=job.folder / "finetune" / f"{number:02d}",
            progress=job.spec.progress,
            device=job.device,
            part=Part(done, recipe.epochs),
        )
        network, best = trained.model, done + trained.best_epoch
        rows = [replace(row, epoch=done + row.epoch) for row in trained.history]
        left = sum(after.widths.values()) / sum(after.dense.values())
        steps.append({"round": number, "units": left, "finetune": [row.flat() for row in rows]})
        history += rows
        done += epochs
    return Trained(network, best, history, steps)


def between(
    groups: Groups, plan: Plan, scores: Mapping[str, Tensor], schedule: ScheduleSpec, number: int
) -> Plan:
    """The plan after one step: what is kept at the end, and the best of the others.

    Args:
        groups: Of the dense network.
        plan: What is kept at the end.
        scores: Order of the units by group.
        schedule: How many are left after which step.
        number: The step, from 1; the last one gives ``plan``.
    """
    if number == schedule.rounds:
        return plan
    keep = dict(plan.keep)
    for group in groups.prunable:
        kept = plan.keep[group.name]
        width = nearest_legal(group, schedule.limit(group.width, len(kept), number))
        best = torch.argsort(scores[group.name].float(), descending=True, stable=True).tolist()
        others = [unit for unit in best if unit not in set(kept)]
        keep[group.name] = tuple(sorted([*kept, *others[: max(width - len(kept), 0)]]))
    return Plan(keep, plan.dense)


def relative(before: Plan, after: Plan) -> Plan:
    """A plan as one of the network that another, larger plan has made.

    Args:
        before: What was kept so far.
        after: What is kept now, part of it. Groups that are empty already are left out.
    """
    keep = {name: _places(units, after.keep[name]) for name, units in before.keep.items() if units}
    return Plan(keep, {name: len(before.keep[name]) for name in keep})


def _places(units: Sequence[int], chosen: Sequence[int]) -> tuple[int, ...]:
    place = {unit: at for at, unit in enumerate(units)}
    return tuple(place[unit] for unit in chosen)
