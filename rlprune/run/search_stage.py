"""The search stage: from the dense network to a plan that meets every budget."""

from __future__ import annotations

import contextlib
import copy
import csv
import io
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from rlprune.errors import BudgetError, StructureError
from rlprune.files import read_json, write_json, write_tensors, write_text
from rlprune.plan import Plan
from rlprune.run.job import Job
from rlprune.run.verify import MARGIN, over_limit, require_met, values_of
from rlprune.structure.twin import copied

if TYPE_CHECKING:
    from rlprune.budgets import ResolvedBudget
    from rlprune.problem import Problem
    from rlprune.search import Agent, SearchResult

log = logging.getLogger(__name__)

STORE = "evaluations.jsonl"
START = "start"
"""Folder with a copy of the policy that the search started from."""

_OUTPUTS = ("plan.json", "masks.safetensors", "compacted.safetensors", "history.csv")
_ORIGIN = "origin.json"
_SHRINK = (0.97, 0.94, 0.9, 0.85, 0.8, 0.7, 0.6)


def run_search(job: Job) -> dict[str, Any]:
    """Search, choose a plan, build its network and write both.

    Evaluations are stored as they finish: after an interruption the search is replayed and those
    on disk are not computed again.

    Args:
        job: The run.

    Returns:
        What later stages and the report need, JSON-serialisable.

    Raises:
        InfeasibleBudgetError: No plan can meet the budgets.
        StructureError: Nothing can be pruned, or a smaller network would not compute what it must;
            names the module and the op.
    """
    from rlprune.search import search

    with contextlib.closing(open_problem(job, store=job.folder / STORE)) as evaluator:
        result = search(
            evaluator,
            agent=starting_agent(job),
            evaluations=job.evaluations,
            seed=job.spec.seed,
            progress=job.spec.progress,
            tensorboard=fresh_events(job),
            callbacks=job.callbacks,
        )
        return write_found(job, evaluator, result)


def open_problem(job: Job, *, store: Path, open_limits: Sequence[str] = ()) -> Problem:
    """What a job searches, with its results in a store.

    Args:
        job: The run.
        store: The file.
        open_limits: Budgets whose limits the store is not bound to.

    Raises:
        InfeasibleBudgetError: No plan can meet the budgets.
        StructureError: Nothing can be pruned, or a smaller network would not compute what it must;
            names the module and the op.
    """
    from rlprune.compaction import try_out
    from rlprune.problem import create, create_executor

    if not job.groups.prunable:
        reasons = "; ".join(f"{group.name}: {group.reason}" for group in job.groups)
        raise StructureError(f"nothing of this network can be pruned. {reasons}")
    try_out(job.groups)
    return create(
        job.groups,
        job.budgets,
        data=job.data,
        score=job.score,
        importance=job.spec.importance,
        config=job.spec.evaluator,
        store=store,
        open_limits=open_limits,
        seed=job.spec.seed,
        foresight=store.parent,
        executor=create_executor(job.spec.executor, workers=job.spec.workers),
        **job.spec.structure.decisions(),
    )


def outputs(job: Job) -> list[str]:
    """The files of the search stage."""
    from rlprune.search.agent import RUN_SUBFOLDER

    agent = sorted((job.folder / RUN_SUBFOLDER).iterdir())
    return [*_OUTPUTS, *(f"{RUN_SUBFOLDER}/{path.name}" for path in agent)]


def fresh_events(job: Job) -> Path:
    """The folder for TensorBoard events of the search, emptied."""
    events = job.folder / "tensorboard"
    shutil.rmtree(events, ignore_errors=True)
    return events


def starting_agent(job: Job) -> Agent:
    """The job's agent, having loaded the policy it is told to start from.

    The policy is copied into the run folder first, so that an interrupted search goes on with the
    one it began with.

    Raises:
        CheckpointError: There is none, or it belongs to another kind of agent.
    """
    from rlprune.search.agent import copy_saved, resolve_agent

    agent = resolve_agent(job.spec.agent)
    kept = job.folder / START
    start = getattr(agent.config, "start", None)
    if start is None or agent.starts_from_plan:
        shutil.rmtree(kept, ignore_errors=True)
        return agent
    if (read_json(kept / _ORIGIN) or {}).get("folder") != str(start):
        shutil.rmtree(kept, ignore_errors=True)
        copy_saved(start, kept)
        write_json(kept / _ORIGIN, {"folder": str(start)})
    agent.load(kept)
    agent.origin = str(start)
    return agent


def write_found(job: Job, evaluator: Problem, result: SearchResult) -> dict[str, Any]:
    """Choose a plan among a search's finalists, build its network and write what was found.

    Args:
        job: The run.
        evaluator: The problem that was searched.
        result: What the search found.

    Returns:
        What later stages and the report need.

    Raises:
        BudgetError: No plan meets the budgets when measured anew.
    """
    from rlprune.search.agent import RUN_SUBFOLDER

    plan, network, costs = _choose(job, evaluator, [f.evaluation.plan for f in result.finalists])
    network, weights = _with_learned(job, evaluator, plan, network, result.agent)
    write_plan(job, plan, network, list(result.history))
    for scratch in job.folder.path.glob("gates-*"):
        shutil.rmtree(scratch)
    shutil.rmtree(job.folder / RUN_SUBFOLDER, ignore_errors=True)
    result.agent.save(job.folder / RUN_SUBFOLDER)
    return {
        "quality": evaluator.rescore(plan),
        "costs": costs,
        "plan": plan.digest,
        "dropped": [branch.name for branch in job.groups.dropped(plan.widths)],
        "evaluations": len(result.ledger),
        "feasible": sum(evaluation.feasible for evaluation in result.ledger),
        "seconds": result.seconds,
        "stats": dict(evaluator.stats),
        "start": result.agent.origin,
        "weights": weights,
        "budgets": told_budgets(evaluator.budgets),
        "groups": told_groups(job, plan),
    }


def _with_learned(
    job: Job, problem: Problem, plan: Plan, network: nn.Module, agent: Agent
) -> tuple[nn.Module, dict[str, float]]:
    """The plan's network with the weights that an agent has trained, where they are better.

    Both are scored on the samples of finalists. The learned ones have adapted to what is gone and
    are not compensated, but for the statistics of batch normalisation.

    Returns:
        The network, both scores and whether the learned weights were ``taken``; nothing of these
        where the agent has trained none.
    """
    if agent.weights is None:
        return network, {}
    from rlprune.problem import qualities

    adapted = replace(job.asked, compensation=None if job.data is None else "bn")
    dense = copied(job.groups.model, {})
    dense.load_state_dict(agent.weights)
    other = replace(job, dense=dense.eval(), asked=adapted).compacted(plan)
    _, score = qualities(job.groups.model, job.data, job.score, job.spec.evaluator, job.calibration)
    found = {"dense": score(copy.deepcopy(network)), "learned": score(copy.deepcopy(other))}
    costs = values_of(problem.budgets, other, job.example_inputs)
    met = not over_limit(problem.budgets, costs, MARGIN)
    better = met and found["learned"] > found["dense"]
    log.info("quality %(dense).4g with the dense weights, %(learned).4g with the learned", found)
    return (other if better else network), {**found, "taken": float(better)}


def told_budgets(budgets: Sequence[ResolvedBudget]) -> dict[str, dict[str, Any]]:
    """What the record of a search says of its budgets."""
    fields = ("limit", "dense", "unit", "spec", "measured")
    return {budget.name: {key: getattr(budget, key) for key in fields} for budget in budgets}


def told_groups(job: Job, plan: Plan) -> list[dict[str, Any]]:
    """What the record of a search says of every group."""
    return [
        {
            "name": group.name,
            "kind": group.kind,
            "dense": group.width,
            "kept": plan.widths.get(group.name, group.width),
            "prunable": group.prunable,
            "reason": group.reason,
        }
        for group in job.groups
    ]


def _choose(
    job: Job, evaluator: Problem, finalists: Sequence[Plan]
) -> tuple[Plan, nn.Module, dict[str, float]]:
    """The best finalist whose network meets every budget when measured anew.

    Clocks differ from one moment to the next, so the best finalist under a measured budget may be
    over its limit now, or later; those nearer to it than a margin give way to the next one, and at
    last to slightly smaller networks.
    """
    budgets = evaluator.budgets
    for plan in _candidates(evaluator, finalists):
        network = job.compacted(plan)
        costs = values_of(budgets, network, job.example_inputs)
        over = over_limit(budgets, costs, MARGIN)
        if not over:
            return plan, network, costs
        if not any(budget.measured or budget.rising for budget in over):
            require_met(budgets, network, job.example_inputs, "the network of the chosen plan")
        log.info("%r is too near a measured limit; trying the next plan", plan)
    unsure = [budget for budget in budgets if budget.measured or budget.rising]
    raise BudgetError(
        "no plan of the search meets the measured budgets when measured anew: "
        + ", ".join(f"{b.name} (limit {b.limit:.6g} {b.unit})".replace(" )", ")") for b in unsure)
        + "; the machine may be busier than it was: set threads=, raise repeats, and run again. "
        "A loss that is protected may need a higher limit"
    )


def _candidates(evaluator: Problem, finalists: Sequence[Plan]) -> Iterator[Plan]:
    yield from finalists
    space, best = evaluator.space, finalists[0]
    ratios = space.ratios(best)
    for factor in _SHRINK:
        smaller = np.where(space.branches, ratios, factor * ratios)
        yield space.adjusted(best, space.choice(smaller))


def write_plan(
    job: Job, plan: Plan, network: nn.Module, history: Sequence[Mapping[str, Any]]
) -> None:
    """Write plan, masks, the compacted network and the history of a search."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(job.folder / "history.csv", table.getvalue())
    masks = plan.masks()
    write_tensors(job.folder / "masks.safetensors", masks)
    write_tensors(job.folder / "compacted.safetensors", network.state_dict())
    write_text(job.folder / "plan.json", plan.to_json() + "\n")
