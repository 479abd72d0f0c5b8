"""How answers are scored: higher is better, and every kind is a mean over the rows of a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rlprune.errors import ConfigError
from rlprune.tasks import Rows, Task
from rlprune.tasks.base import joined


@dataclass(frozen=True)
class Outputs:
    """One network's answers to the scored inputs.

    Attributes:
        rows: What its answers are compared by, with labels where they are known.
        features: Inputs of the last linear layer ``[samples, width]``, where they were asked for.
    """

    rows: Rows
    features: Tensor | None = None

    @classmethod
    def of(cls, parts: Sequence[Outputs]) -> Outputs:
        """The answers to several batches as one."""
        found = [part.features for part in parts if part.features is not None]
        rows = joined([part.rows for part in parts])
        return cls(rows, torch.cat(found) if found else None)


Kind = Callable[[Task, Outputs, Outputs], Tensor]
"""``(task, candidate, dense) -> scalar``."""


def kl(task: Task, candidate: Outputs, dense: Outputs) -> Tensor:
    """Minus the mean KL divergence from the dense network's distribution to the candidate's."""
    target = dense.rows.answers.log_softmax(1)
    guess = candidate.rows.answers.log_softmax(1)
    return -functional.kl_div(guess, target, reduction="batchmean", log_target=True)


def metric(task: Task, candidate: Outputs, dense: Outputs) -> Tensor:
    """The task's metric, with the sign that makes higher better."""
    return _measured(task, task.metric.name, candidate)


def loss(task: Task, candidate: Outputs, dense: Outputs) -> Tensor:
    """Minus the task's loss."""
    return -task.loss(candidate.rows)


def logits(task: Task, candidate: Outputs, dense: Outputs) -> Tensor:
    """Minus the mean squared error of the answers, relative to their variance."""
    error = (candidate.rows.answers - dense.rows.answers).square().mean()
    return -error / dense.rows.answers.var().clamp_min(1e-12)


def features(task: Task, candidate: Outputs, dense: Outputs) -> Tensor:
    """Linear CKA of the last linear layer's inputs with the dense ones (Kornblith et al., 2019).

    Compares how samples relate to one another, so that the two widths may differ. In [0, 1].
    """
    assert candidate.features is not None
    assert dense.features is not None
    left, right = (_gram(outputs.features) for outputs in (candidate, dense))
    return (left * right).sum() / (left.norm() * right.norm()).clamp_min(1e-30)


def _gram(rows: Tensor | None) -> Tensor:
    assert rows is not None
    rows = rows.double() - rows.double().mean(0)
    gram: Tensor = rows @ rows.T
    return gram


KINDS: dict[str, Kind] = {
    "kl": kl,
    "metric": metric,
    "loss": loss,
    "logits": logits,
    "features": features,
}
"""Scores by name; every metric of a task is one too, by its own name."""

_LABELLED = ("metric", "loss")


def kind_of(name: str, task: Task) -> Kind:
    """The score of a name for a task.

    Args:
        name: One of :data:`KINDS`, or of the task's metrics.
        task: What the network is for.

    Raises:
        ConfigError: There is no such score, or it has no meaning for the task.
    """
    if name in {found.name for found in task.metrics}:
        return lambda task, candidate, dense: _measured(task, name, candidate)
    if name not in KINDS:
        valid = ", ".join([*KINDS, *(found.name for found in task.metrics)])
        raise ConfigError(f"quality {name!r} is unknown for {task.name}; choose one of {valid}")
    if name == "kl" and not task.classes:
        raise ConfigError(f"quality 'kl' compares classes, which {task.name} has not; use 'logits'")
    return KINDS[name]


def needs_labels(name: str) -> bool:
    """Whether a score cannot do without labels."""
    return name in _LABELLED or name not in KINDS


def _measured(task: Task, name: str, candidate: Outputs) -> Tensor:
    value = task.measures(task.tally(candidate.rows))[name]
    sign = next(found for found in task.metrics if found.name == name).score(1.0)
    return torch.tensor(sign * value, dtype=torch.float64)
