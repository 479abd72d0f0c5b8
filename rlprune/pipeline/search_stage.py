"""The search stage: from the dense network to a plan that meets every budget."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import shutil
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from rlprune.errors import BudgetError, StructureError
from rlprune.pipeline.folder import write_tensors, write_text
from rlprune.pipeline.job import Job
from rlprune.pipeline.verify import MARGIN, broken, measure, require_met
from rlprune.plan import Plan, nearest_legal

if TYPE_CHECKING:
    from rlprune.evaluator import Evaluator

log = logging.getLogger(__name__)

STORE = "evaluations.jsonl"
OUTPUTS = ("plan.json", "masks.safetensors", "compacted.safetensors", "history.csv")
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
    from rlprune.compaction import probe
    from rlprune.evaluator import create

    if not job.groups.prunable:
        reasons = "; ".join(f"{group.name}: {group.reason}" for group in job.groups)
        raise StructureError(f"nothing of this network can be pruned. {reasons}")
    probe(job.groups)
    evaluator = create(
        job.groups,
        job.budgets,
        data=job.data,
        score=job.score,
        importance=job.importance,
        config=job.evaluator,
        store=job.folder / STORE,
        seed=job.seed,
    )
    with contextlib.closing(evaluator):
        return _search(job, evaluator)


def _search(job: Job, evaluator: Evaluator) -> dict[str, Any]:
    from rlprune.search import search

    events = job.folder / "tensorboard"
    shutil.rmtree(events, ignore_errors=True)
    result = search(
        evaluator,
        agent=job.agent,
        evaluations=job.evaluations,
        seed=job.seed,
        progress=job.progress,
        tensorboard=events,
    )
    finalists = [tuple(f.evaluation.widths) for f in result.finalists]
    widths, network, costs = _choose(job, evaluator, finalists)
    plan = evaluator.plan(widths)
    _write(job, plan, network, list(result.history))
    return {
        "quality": evaluator.rescore(widths),
        "costs": costs,
        "widths": list(widths),
        "evaluations": len(result.ledger),
        "feasible": sum(evaluation.feasible for evaluation in result.ledger),
        "seconds": result.seconds,
        "stats": dict(evaluator.stats),
        "budgets": {
            budget.name: {
                "limit": budget.limit,
                "dense": budget.dense,
                "unit": budget.unit,
                "spec": budget.spec,
                "measured": budget.measured,
            }
            for budget in evaluator.budgets
        },
        "groups": [
            {
                "name": group.name,
                "kind": group.kind,
                "dense": group.width,
                "kept": plan.widths.get(group.name, group.width),
                "prunable": group.prunable,
                "reason": group.reason,
            }
            for group in job.groups
        ],
    }


def _choose(
    job: Job, evaluator: Evaluator, finalists: Sequence[tuple[int, ...]]
) -> tuple[tuple[int, ...], nn.Module, dict[str, float]]:
    """The best finalist whose network meets every budget when measured anew.

    Clocks differ from one moment to the next, so the best finalist under a measured budget may be
    over its limit now, or later; those nearer to it than a margin give way to the next one, and at
    last to slightly smaller networks.
    """
    budgets = evaluator.budgets
    for widths in _candidates(job, finalists):
        network = job.compacted(evaluator.plan(widths))
        costs = measure(budgets, network, job.example_inputs)
        over = broken(budgets, costs, MARGIN)
        if not over:
            return widths, network, costs
        if not any(budget.measured for budget in over):
            require_met(budgets, network, job.example_inputs, "the network of the chosen plan")
        log.info("widths %s are too near a measured limit; trying the next plan", list(widths))
    raise BudgetError(
        "no plan of the search meets the measured budgets when measured anew: "
        + ", ".join(f"{b.name} (limit {b.limit:.6g} {b.unit})" for b in budgets if b.measured)
        + "; the machine may be busier than it was: set threads=, raise repeats, and run again"
    )


def _candidates(job: Job, finalists: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    yield from finalists
    for factor in _SHRINK:
        yield tuple(
            nearest_legal(group, factor * width)
            for group, width in zip(job.groups.prunable, finalists[0], strict=True)
        )


def _write(job: Job, plan: Plan, network: nn.Module, history: list[dict[str, float]]) -> None:
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
