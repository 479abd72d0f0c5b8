"""What criteria work with: scored data, slices of weights, and the rule that combines slices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlprune import tasks
from rlprune.batches import Batch, answer, as_batches
from rlprune.errors import DataError
from rlprune.inputs import ExampleInputs
from rlprune.tasks import Task

if TYPE_CHECKING:
    from rlprune.structure import Group, Groups, Slice

Loss = Callable[[Tensor, Tensor], Tensor]
"""``(network output, labels) -> scalar``."""


class ScoringData:
    """Calibration batches and whatever criteria derive from them once for all groups.

    Iterating yields ``(inputs, labels)`` batches.

    Args:
        groups: The groups to score.
        data: Calibration data in any form :func:`rlprune.batches.as_batches` reads.
        loss: ``(output, labels) -> scalar`` in place of the task's loss.
        task: What the network is for; None infers it from the first batch.
        generator: Source of randomness for criteria that need one; seed 0 by default.
    """

    def __init__(
        self,
        groups: Groups,
        data: Any = None,
        loss: Loss | None = None,
        generator: torch.Generator | None = None,
        task: Task | None = None,
    ) -> None:
        self.groups = groups
        self._loss, self._task = loss, task
        self.generator = generator or torch.Generator().manual_seed(0)
        self.state: dict[str, Tensor] = groups.model.state_dict()
        self._data = data
        self._once: dict[str, Any] = {}

    def __iter__(self) -> Iterator[Batch]:
        """Batches of calibration data."""
        return iter(self.once("batches", lambda: as_batches(self._data)))

    @property
    def classes(self) -> bool:
        """Whether the network answers with one score per class, as far as is known."""
        return self._task is None or self._task.classes

    def loss(self, model: Any, inputs: ExampleInputs, labels: Tensor) -> Tensor:
        """Loss of a network on a labelled batch, a scalar: the user's, else the task's."""
        if self._loss is not None:
            return self._loss(answer(model, inputs), labels)
        task = self._task or tasks.infer(inputs, labels, "calibration data")
        return task.loss(task.rows(task.answer(model, inputs), labels, inputs))

    def answers(self, model: Any, inputs: ExampleInputs) -> Tensor:
        """The rows of a network's answer that a task compares, ``[rows, values]``."""
        task = self._task
        if task is None:
            found = answer(model, inputs)
            return found.reshape(-1, found.shape[-1]).float()
        return task.rows(task.answer(model, inputs), None, inputs).answers

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        """The value computed under ``key`` the first time it was asked for."""
        if key not in self._once:
            self._once[key] = compute()
        return self._once[key]

    def require(self, criterion: str, labels: bool = False) -> list[Batch]:
        """The batches, for a criterion that cannot do without.

        Raises:
            DataError: There is no data, or it has no labels although they are needed.
        """
        batches = list(self)
        if not batches:
            raise DataError(
                f"importance criterion {criterion!r} needs calibration data; pass data=..., or "
                "choose a data-free criterion such as 'l1'"
            )
        if labels and any(batch[1] is None for batch in batches):
            raise DataError(
                f"importance criterion {criterion!r} needs labelled calibration data; pass "
                "(inputs, labels), or choose a criterion without labels such as 'activation'"
            )
        return batches


def unit_rows(tensor: Tensor, part: Slice) -> Tensor:
    """The entries of ``tensor`` that belong to each unit.

    Args:
        tensor: The tensor the slice indexes.
        part: The slice.

    Returns:
        ``[width, n]``, one row per unit.
    """
    index = part.index.to(tensor.device)
    picked = tensor.index_select(part.dim, index.flatten()).movedim(part.dim, 0)
    return picked.reshape(index.shape[0], -1)


def weight_slices(groups: Groups, group: Group) -> list[Slice]:
    """Slices of the weights that produce a group's units; of its consumers if nothing does."""
    slices = groups.slices(group)
    producing = [part for part in slices if part.role == "out"]
    return producing or [part for part in slices if part.role == "in"] or list(slices)


def combine(scores: Iterable[Tensor]) -> Tensor:
    """Combine the scores that coupled slices give to the same units.

    Every slice is divided by its own mean over the group before averaging, so that a layer with
    large weights does not outvote the others. Only the order inside one group has a meaning.

    Args:
        scores: One ``[width]`` tensor per slice, not negative.

    Returns:
        ``[width]`` float32.
    """
    parts = [score.double() / score.double().mean().clamp_min(1e-30) for score in scores]
    return torch.stack(parts).mean(0).float()


def owner(model: nn.Module, tensor: str) -> nn.Module:
    """The module that holds the state-dict entry ``tensor``."""
    return model.get_submodule(tensor.rpartition(".")[0])
