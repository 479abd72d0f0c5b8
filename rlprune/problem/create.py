"""An evaluator from data and settings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rlprune import budgets as budget_module
from rlprune import importance as importance_module
from rlprune.batches import as_batches, cut
from rlprune.budgets import Budget
from rlprune.compensation import reconstructs
from rlprune.errors import ConfigError, DataError
from rlprune.options import check_types
from rlprune.problem.executors import Executor
from rlprune.problem.foresight import cause_of, remembered
from rlprune.problem.problem import Problem
from rlprune.problem.quality import DataQuality, Quality, ScoreQuality
from rlprune.sensitivity import sensitivity
from rlprune.space import Space
from rlprune.tasks import Task

if TYPE_CHECKING:
    from rlprune.structure import Groups

ORDER, CURVES = "order.safetensors", "sensitivity.safetensors"


@dataclass(frozen=True)
class EvaluatorConfig:
    """How candidates are scored.

    Attributes:
        quality: ``kl``, ``metric``, ``loss``, ``logits``, ``features``, or a metric of the task,
            such as ``accuracy``.
        images: Held-out samples every candidate is scored on.
        rescore_images: Held-out samples finalists are scored on.
        batch_size: Samples per forward.
        statistics: Batch normalisation: ``batch``, ``recalibrate`` or ``keep``.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        channels_last: Whether images are laid out channels last.
        calibration_images: Training samples for recalibration, data-driven importance and
            compensation.
        compensation: Methods applied to every candidate before it is scored.
    """

    quality: str = "logits"
    images: int = 512
    rescore_images: int = 2048
    batch_size: int = 256
    statistics: str = "batch"
    precision: str = "auto"
    channels_last: bool = True
    calibration_images: int = 1024
    compensation: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        """Check every field."""
        check_types(self, "evaluator")
        for name in ("images", "rescore_images", "calibration_images"):
            if getattr(self, name) < 1:
                raise ConfigError(f"evaluator {name} must be at least 1, got {getattr(self, name)}")


def create(
    groups: Groups,
    budgets: Mapping[str, Any] | Sequence[Budget],
    *,
    data: Any = None,
    score: Callable[[nn.Module], float] | None = None,
    importance: Any = "l1",
    config: EvaluatorConfig | None = None,
    store: Path | str | None = None,
    open_limits: Collection[str] = (),
    seed: int = 0,
    foresight: Path | None = None,
    tie: Sequence[str] = (),
    depth: bool | str = False,
    executor: Executor | None = None,
) -> Problem:
    """Build the evaluator of a network.

    Args:
        groups: The network's groups.
        budgets: In any form :func:`rlprune.budgets.parse` reads.
        data: A :class:`rlprune.Data`; candidates are scored on its held-out part.
        score: The user's own score, in place of one on ``data``; higher is better.
        importance: A criterion, or scores by group.
        config: How candidates are scored.
        store: JSONL file for results.
        open_limits: Budgets whose limits the store is not bound to.
        seed: Seed of a random criterion.
        foresight: Folder where the order of the units and the sensitivity curves are kept, and
            taken from when everything they depend on is the same; a function of the user's own is
            called each time.
        tie: Globs of groups that share one ratio, see :class:`rlprune.space.Space`.
        depth: Whether branches are decided on; ``"layers"``: whole layers.
        executor: Where candidates are measured; this process when None.

    Returns:
        The evaluator.

    Raises:
        DataError: There is neither data nor a score.
        RlpruneError: Whatever the parts find wrong.
    """
    config = config or EvaluatorConfig()
    task: Task | None = getattr(data, "task", None)
    resolved = budget_module.resolve(budgets, groups.model, groups.example_inputs, groups)
    calibration = None if data is None else calibration_of(data, config.calibration_images)
    problem = "" if foresight is None else _cause(groups, calibration, seed)
    reconstruct = reconstructs(config.compensation)

    def kept(file: str) -> Path | None:
        return None if foresight is None else foresight / file

    scores = unit_scores(groups, importance, calibration, task, seed, foresight)
    quality, rescore = qualities(groups.model, data, score, config, calibration)

    def predict() -> dict[str, Tensor]:
        batches = as_batches(calibration)
        curves = sensitivity(
            groups,
            scores,
            batches,
            reconstruct=reconstruct,
            seed=seed,
            classes=task is None or task.classes,
        )
        return {name: torch.from_numpy(curve) for name, curve in curves.items()}

    @cache
    def predicted() -> dict[str, np.ndarray]:
        cause = cause_of(problem, scores, reconstruct)
        curves = remembered(kept(CURVES), cause, predict)
        return {group.name: curves[group.name].numpy() for group in groups.prunable}

    return Problem(
        Space(groups, scores, tie=tie, depth=depth),
        resolved,
        quality,
        rescore=rescore,
        compensation=config.compensation,
        calibration=calibration if config.compensation else None,
        store=store,
        open_limits=open_limits,
        sensitivity=None if calibration is None else predicted,
        executor=executor,
        samples=calibration,
        task=task,
    )


def unit_scores(
    groups: Groups,
    importance: Any,
    calibration: Any,
    task: Task | None,
    seed: int,
    foresight: Path | None = None,
) -> Mapping[str, Tensor]:
    """The order of every prunable group's units.

    Args:
        groups: The network's groups.
        importance: A criterion, or scores by group.
        calibration: Samples for criteria that use them.
        task: What the samples are.
        seed: Seed of a random criterion.
        foresight: Folder where the order is kept, see :func:`create`.

    Returns:
        Scores ``[width]`` by group, the units to keep highest.
    """
    if isinstance(importance, Mapping):
        return importance

    def compute() -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return importance_module.scores(
            groups, importance, data=calibration, task=task, generator=generator
        )

    known = isinstance(importance, str) and importance in importance_module.CRITERIA
    if foresight is None or not known:
        return compute()
    cause = cause_of(_cause(groups, calibration, seed), importance)
    found = remembered(foresight / ORDER, cause, compute)
    return {group.name: found[group.name] for group in groups.prunable}


def _cause(groups: Groups, calibration: Any, seed: int) -> str:
    """What the order of the units and the sensitivity curves both depend on."""
    return cause_of(
        groups.model,
        [(group.name, group.legal_widths()) for group in groups.prunable],
        calibration,
        seed,
    )


def qualities(
    model: nn.Module,
    data: Any,
    score: Callable[[nn.Module], float] | None,
    config: EvaluatorConfig,
    calibration: Any = None,
    task: Task | None = None,
) -> tuple[Quality, Quality]:
    """The score of every candidate, and the score of finalists.

    Both come from the held-out part of the training split. Finalists are scored on samples the
    search has not seen, as far as there are any, so that luck on the search's samples is not
    rewarded twice.

    Args:
        model: The dense network.
        data: Has ``holdout``, an ``(inputs, labels)`` pair of which every prefix is balanced, and
            a ``task``.
        score: The user's own score instead.
        config: How candidates are scored.
        calibration: Data for ``statistics="recalibrate"``.
        task: What the network is for; None takes the data's.

    Returns:
        Quality and rescoring quality.

    Raises:
        DataError: There is neither data nor a score.
    """
    if score is not None:
        recalibration = calibration if config.statistics == "recalibrate" else None
        own = ScoreQuality(score, recalibration)
        return own, own
    if data is None:
        raise DataError("candidates need a score: pass data=rlprune.Data(...) or score=callable")
    if hasattr(data, "held_out"):  # reads no more of a large set than is scored
        total = data.holdout_size
        searched = min(config.images, -(-total // 2))
        held_out = data.held_out(min(total, searched + config.rescore_images))
        total = len(held_out[1])
    else:
        held_out = data.holdout
        total = len(held_out[1])
        searched = min(config.images, -(-total // 2))
    unseen = torch.arange(searched, total)
    finals = torch.cat([unseen, torch.arange(searched)])[: config.rescore_images]
    search, final = (
        DataQuality(
            model,
            cut(held_out, chosen),
            task=task or getattr(data, "task", None),
            kind=config.quality,
            batch_size=config.batch_size,
            statistics=config.statistics,
            calibration=calibration if config.statistics == "recalibrate" else None,
            precision=config.precision,
            channels_last=config.channels_last,
        )
        for chosen in (torch.arange(searched), finals)
    )
    return search, final


def calibration_of(data: Any, count: int) -> tuple[Any, Tensor] | Any:
    """Training samples for calibration, ``count`` of them where the data can tell."""
    found = data.calibration
    return found(count) if callable(found) else found
