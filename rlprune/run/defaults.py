"""What ``auto`` stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rlprune.compensation import is_sequential, reconstructs
from rlprune.data import Data
from rlprune.problem import EvaluatorConfig
from rlprune.run.spec import RunSpec
from rlprune.training import FineTune


def filled_in(spec: RunSpec, data: Data | None) -> RunSpec:
    """The specification with every ``auto`` filled in.

    Args:
        spec: As given.
        data: The run's data.
    """
    finetune = spec.finetune
    if isinstance(finetune, str):
        finetune = None if data is None else FineTune(**data.task.recipe)
    chosen, evaluator = default_compensation(spec.compensation, data, spec.evaluator, finetune)
    importance = default_importance(spec.importance, chosen)
    return replace(
        spec, finetune=finetune, compensation=chosen, evaluator=evaluator, importance=importance
    )


def default_importance(importance: Any, compensation: Any) -> Any:
    """Fill in what ``auto`` stands for.

    Args:
        importance: As the user gave it; ``auto`` is ``obs``, which orders units by how well least
            squares does without them, where the result is compensated by it, and ``l1`` elsewhere.
        compensation: That of the result, as `default_compensation` returns it.
    """
    if not isinstance(importance, str) or importance != "auto":
        return importance
    return "obs" if reconstructs(compensation) else "l1"


def default_compensation(
    compensation: Any, data: Data | None, evaluator: EvaluatorConfig, finetune: FineTune | None
) -> tuple[Any, EvaluatorConfig]:
    """Fill in what ``auto`` stands for, and let the evaluator compensate as the result will be.

    Args:
        compensation: As the user gave it; ``auto`` is least squares, then BN recalibration, where
            there is data. Where no fine-tuning follows, layers are refitted one after the other in
            between: that takes as long as many candidates, and fine-tuning makes it needless.
        data: The run's data.
        evaluator: How candidates are scored; its own choice of compensation, if any, is kept.
        finetune: The recipe; None or no epochs for none.

    Returns:
        The compensation of the result, and the evaluator's settings: candidates get "least_squares"
        in place of "sequential", and BN recalibration is left to the evaluator's ``statistics``.
    """
    if isinstance(compensation, str):
        compensation = None if compensation == "auto" and data is None else [compensation]
        if compensation == ["auto"]:
            tuned = finetune is not None and finetune.epochs > 0
            compensation = ["least_squares", *([] if tuned else ["sequential"]), "bn"]
    elif compensation is not None and not isinstance(compensation, Sequence):
        compensation = [compensation]
    chosen = list(compensation or ()) or None
    if chosen and not evaluator.compensation:
        quick = ["least_squares" if is_sequential(item) else item for item in chosen]
        others = dict.fromkeys(item for item in quick if item != "bn")
        evaluator = replace(evaluator, compensation=tuple(others))
    return chosen, evaluator
