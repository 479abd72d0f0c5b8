"""Importance: which units of a group to keep first.

A criterion is a function ``fn(groups, group, data) -> Tensor[width]``, higher meaning more
important. :func:`scores` runs one over every prunable group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlprune.errors import ConfigError, RlpruneError, ScoreError
from rlprune.importance.activation import activation
from rlprune.importance.base import Loss, ScoringData, combine, unit_rows, weight_slices
from rlprune.importance.held import concept, memory, redundancy
from rlprune.importance.magnitude import bn_scale, fpgm, l1, l2, random
from rlprune.importance.obs import obs
from rlprune.importance.taylor import taylor
from rlprune.importance.taylor_example import fisher, taylor_example, taylor_kl
from rlprune.plugins import Registry
from rlprune.progress import track
from rlprune.tasks import Task

if TYPE_CHECKING:
    from rlprune.structure import Group, Groups

Criterion = Callable[["Groups", "Group", ScoringData], Tensor]
"""``(groups, group, data) -> [width]``."""

CRITERIA: Registry[Criterion] = Registry("importance", "rlprune.criteria")
"""Criteria by name: those of rlprune, and those that installed packages declare as entry points."""

for _name, _criterion in {
    "l1": l1,
    "l2": l2,
    "bn_scale": bn_scale,
    "taylor": taylor,
    "taylor_example": taylor_example,
    "taylor_kl": taylor_kl,
    "fisher": fisher,
    "activation": activation,
    "fpgm": fpgm,
    "obs": obs,
    "redundancy": redundancy,
    "concept": concept,
    "memory": memory,
    "random": random,
}.items():
    CRITERIA.register(_name)(_criterion)


def find(criterion: str | Criterion) -> Criterion:
    """The criterion that a name, an entry point, a dotted path or a function stands for.

    Raises:
        ConfigError: The name is unknown or the path cannot be imported.
    """
    found = CRITERIA.find(criterion) if isinstance(criterion, str) else criterion
    if not callable(found):
        raise ConfigError(f"importance {criterion!r} is not a function but {found!r}")
    return found


def scores(
    groups: Groups,
    criterion: str | Criterion = "l1",
    *,
    data: Any = None,
    loss: Loss | None = None,
    task: Task | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Score the units of every prunable group.

    Args:
        groups: The network's groups.
        criterion: A built-in name, a function, or the dotted path of one.
        data: Calibration data (see :func:`rlprune.batches.as_batches`), for criteria that use it.
        loss: ``(output, labels) -> scalar`` for ``taylor`` and ``taylor_example``, in place
            of the task's.
        task: What the network is for; None infers it from the data.
        generator: Source of randomness for ``random``; seed 0 by default.

    Returns:
        Group name -> ``[width]`` float32 on the CPU, higher meaning keep.

    Raises:
        ConfigError: The criterion is unknown.
        DataError: The criterion needs data that is not there.
        ScoreError: The criterion returned something else than ``width`` finite numbers.
    """
    function = find(criterion)
    label = criterion if isinstance(criterion, str) else getattr(criterion, "__name__", "criterion")
    scoring = ScoringData(groups, data, loss, generator, task)
    with torch.no_grad():
        return {
            group.name: _checked(_scored(function, groups, group, scoring, label), group, label)
            for group in track(groups.prunable, "ordering units")
        }


def _scored(
    function: Criterion, groups: Groups, group: Group, scoring: ScoringData, label: str
) -> Any:
    try:
        return function(groups, group, scoring)
    except RlpruneError:
        raise
    except Exception as error:
        raise ScoreError(
            f"importance {label!r} raised {type(error).__name__} for group {group.name!r}: {error};"
            " a criterion is called with (groups, group, data)"
        ) from error


def _checked(score: Any, group: Group, label: str) -> Tensor:
    if not isinstance(score, Tensor) or score.shape != (group.width,):
        shown = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
        raise ScoreError(
            f"importance {label!r} returned {shown} for group {group.name!r}; "
            f"expected a tensor of shape ({group.width},)"
        )
    if not bool(torch.isfinite(score).all()):
        raise ScoreError(f"importance {label!r} returned non-finite scores for {group.name!r}")
    return score.detach().float().cpu()


__all__ = [
    "CRITERIA",
    "Criterion",
    "Loss",
    "ScoringData",
    "activation",
    "bn_scale",
    "combine",
    "concept",
    "find",
    "fisher",
    "fpgm",
    "l1",
    "l2",
    "memory",
    "obs",
    "random",
    "redundancy",
    "scores",
    "taylor",
    "taylor_example",
    "taylor_kl",
    "unit_rows",
    "weight_slices",
]
