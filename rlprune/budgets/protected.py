"""Classes as budgets: what a pruned classifier may lose on the samples of a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlprune.budgets.base import Budget
from rlprune.errors import ConfigError
from rlprune.inputs import map_tensors, to_device
from rlprune.options import hint

if TYPE_CHECKING:
    from rlprune.tasks import Task


class ClassLoss:
    """The task's mean loss on the samples of one class: a cost that rises as networks shrink.

    Args:
        task: What the samples are.
        inputs: Samples of the class.
        labels: Their labels.
    """

    def __init__(self, task: Task, inputs: Any, labels: Tensor) -> None:
        self._task, self._inputs, self._labels = task, inputs, labels

    def __call__(self, model: nn.Module, example_inputs: Any = None) -> float:
        """Loss of a network."""
        parameter = next(model.parameters())
        inputs = to_device(self._inputs, parameter.device, parameter.dtype)
        labels = self._labels.to(parameter.device)
        with torch.no_grad():
            rows = self._task.rows(self._task.answer(model, inputs), labels, inputs)
            return float(self._task.loss(rows))

    def identity(self) -> list[Any]:
        """The task and the samples."""
        return [self._task, self._inputs, self._labels]


def protected(
    limits: Mapping[str, Any],
    task: Task | None,
    samples: tuple[Any, Tensor] | None,
    names: Sequence[str] | None,
) -> dict[str, Budget]:
    """Budgets on what must not be forgotten.

    Args:
        limits: By class (its name or number) the most the loss on its samples may be, as a number
            or as a share of the dense network's, ``"110%"``; or any budget under a name of its
            own, such as those of :func:`rlprune.analysis.protect`.
        task: What the samples are.
        samples: Training samples ``(inputs, labels)``.
        names: Names of the classes.

    Returns:
        Budgets by name, such as ``"loss of cat"``.

    Raises:
        ConfigError: A class is unknown or has no samples, or the labels are no classes.
    """
    found: dict[str, Budget] = {}
    for concept, limit in limits.items():
        if isinstance(limit, Budget):
            found[concept] = limit.named(concept)
            continue
        if task is None or samples is None or samples[1].ndim != 1 or not task.classes:
            raise ConfigError(
                f"protect: {concept!r} is a class, and the data have no class for every sample; "
                "give a budget, as rlprune.analysis.protect makes them"
            )
        inputs, labels = samples
        rows = torch.nonzero(labels == _number(concept, names, labels))[:, 0]
        if not len(rows):
            raise ConfigError(f"protect: no calibration sample is of the class {concept!r}")
        own = map_tensors(inputs, partial(torch.index_select, dim=0, index=rows))
        name = f"loss of {concept}"
        loss = ClassLoss(task, own, labels[rows])
        found[name] = Budget(loss, limit, name=name, rising=True)
    return found


def _number(concept: str, names: Sequence[str] | None, labels: Tensor) -> int:
    known = [str(name) for name in names or ()]
    if str(concept) in known:
        return known.index(str(concept))
    if str(concept).isdigit():
        return int(concept)
    options = known or [str(label) for label in labels.unique().tolist()]
    raise ConfigError(f"protect: there is no class {concept!r}; {hint(str(concept), options)}")
