"""The fine-tuning stage: from the compacted network to the one that is handed over."""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from rlprune.budgets import ResolvedBudget
from rlprune.files import write_tensors
from rlprune.plan import Plan
from rlprune.run.job import Job
from rlprune.run.verify import require_met

if TYPE_CHECKING:
    from rlprune.training.record import AfterEpoch

log = logging.getLogger(__name__)

OUTPUTS = ("model.safetensors",)


def run_finetune(
    job: Job, plan: Plan, compacted: nn.Module, budgets: Sequence[ResolvedBudget]
) -> tuple[nn.Module, dict[str, Any]]:
    """Train the compacted network, measure every budget on the result, write its weights.

    Every epoch leaves a checkpoint in ``finetune/``, from which an interrupted training resumes.
    With a gradual schedule the dense network is trained, and becomes the compacted one meanwhile.

    Args:
        job: The run.
        plan: What is kept.
        compacted: The network before fine-tuning; not changed.
        budgets: What the result has to meet.

    Returns:
        The network, and what the report needs.

    Raises:
        BudgetError: The trained network breaks a budget.
        TrainingError: The loss is not finite.
    """
    network, result = compacted, {"best_epoch": 0, "history": []}
    if job.recipe is not None and job.recipe.epochs > 0:
        trained, result = _train(job, plan, compacted)
        # Training may lay weights out differently; what is measured is what will be handed over.
        network = copy.deepcopy(compacted)
        network.load_state_dict(trained.state_dict())
    network = network.eval()
    costs = require_met(budgets, network, job.example_inputs, "the fine-tuned network")
    write_tensors(job.folder / "model.safetensors", network.state_dict())
    return network, {**result, "costs": costs}


def told(job: Job) -> list[AfterEpoch]:
    """What tells the job's callbacks of an epoch."""
    return [lambda history, c=c: c.on_epoch(history[-1].flat()) for c in job.callbacks]  # type: ignore[misc]


def _train(job: Job, plan: Plan, compacted: nn.Module) -> tuple[nn.Module, dict[str, Any]]:
    from rlprune.run.gradual import train_gradually
    from rlprune.training import CsvHistory, TensorBoardHistory, finetune

    assert job.data is not None
    events = job.folder / "tensorboard" / "finetune"
    shutil.rmtree(events, ignore_errors=True)
    table = CsvHistory(job.folder / "finetune.csv")
    if job.spec.schedule.gradual:
        found = train_gradually(job, plan)
        table(found.history)
        return found.network, {
            "best_epoch": found.best_epoch, "history": found.flat, "rounds": found.steps
        }  # fmt: skip
    trained = finetune(
        compacted,
        job.dense,
        job.data,
        job.recipe,
        seed=job.spec.seed,
        checkpoint_dir=job.folder / "finetune",
        progress=job.spec.progress,
        device=job.device,
        callbacks=(table, TensorBoardHistory(events, prefix="finetune"), *told(job)),
    )
    return trained.model, {
        "best_epoch": trained.best_epoch,
        "history": [row.flat() for row in trained.history],
    }
