"""Iterative pruning: rounds of search, compaction and fine-tuning, each on the network before."""

from __future__ import annotations

import copy
import csv
import io
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils._pytree import tree_leaves

from rlprune import budgets as budget_module
from rlprune.budgets import Limit, ResolvedBudget
from rlprune.errors import ConfigError, StructureError
from rlprune.inputs import call_safely
from rlprune.modes import evaluating
from rlprune.plan import Plan
from rlprune.run.folder import RunFolder
from rlprune.run.job import Job
from rlprune.run.schedule import ScheduleSpec
from rlprune.run.search_stage import told_budgets, told_groups, write_plan
from rlprune.run.stages import Stages

log = logging.getLogger(__name__)

FOLDER = "rounds"


def run_rounds(job: Job) -> dict[str, Any]:
    """The search stage of an iterative schedule.

    Every round is an ordinary run in a folder of its own below ``rounds/``, on the fine-tuned
    network of the round before, so that an interrupted one goes on where it was. The last round is
    searched here and fine-tuned as the whole run's fine-tuning stage, which learns from the network
    that was given.

    Args:
        job: The whole run.

    Returns:
        What later stages and the report need, as `rlprune.run.search_stage.run_search`.

    Raises:
        ConfigError: The importance is given as scores, which hold for the first round alone.
        RlpruneError: As an ordinary run, for any of the rounds.
    """
    schedule = job.spec.schedule
    if isinstance(job.spec.importance, Mapping):
        raise ConfigError(
            "schedule=iterative scores units anew in every round: give importance= as a name or a "
            "function, not as scores"
        )
    resolved = budget_module.resolve(job.budgets, job.dense, job.example_inputs, job.groups)
    network, plan = job.dense, Plan.dense_plan(job.groups)
    told: list[dict[str, Any]] = []
    for number in range(1, schedule.rounds + 1):
        part = _round(job, network, resolved, number)
        log.info("round %d/%d: %s", number, schedule.rounds, _shown(part))
        with part.folder.lock():
            result = Stages(part).run()
        plan = composed(plan, result.plan)
        network = result.model if result.model is not None else _searched(part, result.plan)
        told.append(_told(part, number))
    final = job.skeleton(plan, network.state_dict())
    _require_same(final, network, job.example_inputs)
    write_plan(job, plan, final, _history(job, schedule.rounds))
    last = part.folder
    from rlprune.search.agent import RUN_SUBFOLDER

    shutil.rmtree(job.folder / RUN_SUBFOLDER, ignore_errors=True)
    shutil.copytree(last / RUN_SUBFOLDER, job.folder / RUN_SUBFOLDER)
    record = last.record("search")
    assert record is not None
    return {
        **record.result,
        "costs": {budget.name: budget.value(final, job.example_inputs) for budget in resolved},
        "plan": plan.digest,
        "dropped": [branch.name for branch in job.groups.dropped(plan.widths)],
        "budgets": told_budgets(resolved),
        "groups": told_groups(job, plan),
        **{key: sum(row[key] for row in told) for key in ("evaluations", "feasible", "seconds")},
        "rounds": told,
    }


def composed(first: Plan, second: Plan) -> Plan:
    """The plan that does at once what two plans do one after the other.

    Args:
        first: Of the network that was given.
        second: Of the network that ``first`` makes. Groups that it does not name stay as they are.

    Raises:
        StructureError: A group has another width than ``first`` leaves it.
    """
    keep = dict(first.keep)
    for name, units in second.keep.items():
        left = first.keep.get(name)
        if left is None or len(left) != second.dense[name]:
            found = "no such group" if left is None else f"{len(left)} units"
            raise StructureError(
                f"group '{name}' has {second.dense[name]} units in the network of one round, and "
                f"{found} in the plan of those before: use schedule=oneshot for this network"
            )
        keep[name] = tuple(left[unit] for unit in units)
    return Plan(keep, first.dense)


def _round(job: Job, network: nn.Module, resolved: Sequence[ResolvedBudget], number: int) -> Job:
    """One round as a run of its own."""
    schedule, recipe = job.spec.schedule, job.whole_recipe
    last = number == schedule.rounds
    if recipe is not None:
        recipe = replace(recipe, epochs=0 if last else schedule.share(recipe.epochs, number))
    budgets = []
    for asked, budget in zip(job.budgets, resolved, strict=True):
        own = copy.copy(asked)
        own.limit = Limit(schedule.limit(budget.dense, budget.limit, number), relative=False)
        budgets.append(own)
    folder = RunFolder(job.folder / FOLDER / f"{number:02d}")
    asked_spec = replace(
        job.asked,
        schedule=ScheduleSpec(),
        finetune=recipe,
        compensation=job.spec.compensation,
        importance=job.spec.importance,
        stages=("search",) if last else ("search", "finetune"),
        exports=(),
        structure=job.spec.structure,
        out_dir=folder.path,
        seed=job.spec.seed,
    )
    evaluations = max(1, schedule.share(job.evaluations, number))
    return replace(
        job, dense=network, asked=asked_spec, budgets=tuple(budgets), evaluations=evaluations,
        folder=folder,
    )  # fmt: skip


def _searched(part: Job, plan: Plan) -> nn.Module:
    return part.skeleton(plan, load_file(part.folder / "compacted.safetensors"))


def _require_same(final: nn.Module, network: nn.Module, example_inputs: Any) -> None:
    """The rounds' plans taken together must make the network that the rounds have made."""
    with torch.no_grad(), evaluating(final), evaluating(network):
        pairs = zip(
            tree_leaves(call_safely(final, example_inputs)),
            tree_leaves(call_safely(network, example_inputs)),
            strict=True,
        )
        for a, b in pairs:
            if isinstance(a, torch.Tensor) and not torch.allclose(a, b, rtol=1e-4, atol=1e-5):
                raise StructureError(
                    "the plans of the rounds, taken together, do not make the network of the last "
                    "round: use schedule=oneshot for this network, and please report it"
                )


def _shown(part: Job) -> str:
    return ", ".join(f"{budget.name} <= {budget.limit}" for budget in part.budgets)


def _told(part: Job, number: int) -> dict[str, Any]:
    """A row of the curve over rounds."""
    search, tuned = part.folder.record("search"), part.folder.record("finetune")
    assert search is not None
    return {
        "round": number,
        "limits": {name: told["limit"] for name, told in search.result["budgets"].items()},
        "costs": search.result["costs"],
        "quality": search.result["quality"],
        "evaluations": search.result["evaluations"],
        "feasible": search.result["feasible"],
        "seconds": search.result["seconds"],
        "finetune": [] if tuned is None else tuned.result["history"],
    }


def _history(job: Job, rounds: int) -> list[dict[str, Any]]:
    """The histories of all rounds in one table, evaluations counted on."""
    rows: list[dict[str, Any]] = []
    for number in range(1, rounds + 1):
        path = job.folder / FOLDER / f"{number:02d}" / "history.csv"
        before = len(rows)
        for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))):
            count = before + float(row["evaluation"])
            rows.append({**row, "evaluation": count, "round": number})
    return rows
