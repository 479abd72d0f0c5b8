"""What a task is: how a network is called on a batch, what its answer is held against, and how."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rlprune import batches
from rlprune.batches import Batch
from rlprune.errors import DataError
from rlprune.inputs import ExampleInputs, tensors_in
from rlprune.tasks.metric import Metric

LOSS, COUNT = "loss", "count"
"""Keys of every tally: the loss summed over the rows, and the number of rows."""

Sums = Mapping[str, Tensor]
"""Quantities that add up over batches."""


@dataclass(frozen=True)
class Rows:
    """A network's answer to a batch as a table: everything is compared row by row.

    A row is a sample, a token that counts, a pixel with a label: whatever the loss is a mean over.

    Attributes:
        answers: ``[rows, values]`` float32.
        labels: ``[rows]`` class numbers or ``[rows, values]`` numbers; None where there are none.
    """

    answers: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.answers)

    def pick(self, chosen: Tensor) -> Rows:
        """Some of the rows."""
        return Rows(self.answers[chosen], None if self.labels is None else self.labels[chosen])


class Task(ABC):
    """What a network is for. Data, training, problem and report ask it; none knows a metric.

    A subclass names its ``metrics`` (the first one decides) and says what a row of an answer is,
    and the loss and the sums of rows; the rest follows. Options are public attributes.

    Example:
        >>> class Ranking(Regression):
        ...     name = "ranking"
        ...     def loss(self, rows, label_smoothing=0.0):
        ...         gaps = rows.answers - rows.answers.T
        ...         return softplus(-gaps * (rows.labels - rows.labels.T).sign()).mean()
    """

    name: ClassVar[str]
    metrics: tuple[Metric, ...]
    classes: ClassVar[bool] = False
    """Whether a row is one score per class, so that a softmax of it has a meaning."""
    recipe: ClassVar[Mapping[str, Any]] = {}
    """Fields of a training recipe that suit the task's usual networks better than the defaults."""

    @property
    def metric(self) -> Metric:
        """The metric that decides."""
        return self.metrics[0]

    def unpack(self, batch: Any) -> Batch:
        """Tell the inputs of a batch from its labels.

        Args:
            batch: What a loader yields: ``(inputs, labels)``, ``(input, input, ..., labels)``, or
                a mapping of keyword arguments with ``labels`` (or ``label``) among them.

        Raises:
            DataError: It is none of these.
        """
        return batches.unpack(batch)

    def answer(self, model: nn.Module, inputs: ExampleInputs) -> Tensor:
        """Call a network and take the tensor it answers with; ``logits`` of a model output."""
        return batches.answer(model, inputs)

    def rows(
        self, answer: Tensor, labels: Tensor | None = None, inputs: ExampleInputs | None = None
    ) -> Rows:
        """The rows of an answer that count.

        Args:
            answer: What :meth:`answer` returned.
            labels: Labels of the batch, if any.
            inputs: What the network was called with: tells padding from tokens.

        Raises:
            DataError: The answer has not the shape that the task needs.
        """
        return flat(answer, labels)

    @abstractmethod
    def loss(self, rows: Rows, label_smoothing: float = 0.0) -> Tensor:
        """Mean loss of labelled rows, a scalar; smoothing is for tasks with classes."""

    @abstractmethod
    def distillation(self, student: Rows, teacher: Rows, temperature: float) -> Tensor:
        """How far the student's rows are from the teacher's: a scalar, on the scale of the loss."""

    @abstractmethod
    def tally(self, rows: Rows) -> Sums:
        """Sums over labelled rows, ``loss`` and ``count`` among them, from which metrics follow."""

    @abstractmethod
    def measures(self, sums: Sums) -> dict[str, float]:
        """Metrics by name, and ``loss``, from sums over all batches."""

    @abstractmethod
    def outputs(self, labels: Tensor) -> int | None:
        """Values per row that labels ask of a network; None where they do not tell."""

    @abstractmethod
    def check(
        self, labels: Tensor, outputs: int | None, where: str, names: tuple[str, ...] | None = None
    ) -> None:
        """Insist that labels are of the right kind and in range.

        Args:
            labels: Labels of a whole split, or of one batch.
            outputs: Values per row of a network.
            where: Which labels, for the message.
            names: Names of the classes, for the message.

        Raises:
            DataError: They are not; says which one, and what is valid.
        """

    def check_network(
        self,
        model: nn.Module,
        inputs: ExampleInputs,
        outputs: int | None,
        what: str = "example_inputs",
    ) -> None:
        """Insist that a network answers with enough values for the labels.

        Args:
            model: The network, in eval mode.
            inputs: Example inputs.
            outputs: Values per row that the labels need, if that is known.
            what: What the inputs are, for the message.

        Raises:
            DataError: It fails on them, it has fewer outputs than there are classes, or the answer
                is no table.
        """
        with torch.no_grad():
            try:
                answer = self.answer(model, inputs)
            except Exception as error:
                formats = [f"{list(tensor.shape)} {tensor.dtype}" for tensor in tensors_in(inputs)]
                raise DataError(
                    f"the network cannot be called with {what} ({', '.join(formats)}): "
                    f"{type(error).__name__}: {error}"
                ) from error
            found = self.rows(answer, None, inputs).answers.shape[1]
        wrong = outputs is not None and (found < outputs if self.classes else found != outputs)
        if wrong:
            raise DataError(
                f"{self.name}: the network answers with {found} values per row, the labels need "
                f"{outputs}; build it with {outputs} outputs, or give other data"
            )

    def strata(self, labels: Tensor) -> Tensor | None:
        """Numbers ``[N]`` that draws are balanced by; None draws without regard to the labels."""
        return None

    def shown(self) -> tuple[Metric, ...]:
        """The metrics in the before-and-after columns of a report."""
        return self.metrics

    def identity(self) -> Any:
        """What results depend on: the task, its options, and code that is not rlprune's own."""
        code = {
            f"{part.__qualname__}.{key}": value
            for part in type(self).__mro__
            if part not in (object, ABC) and not part.__module__.startswith("rlprune.")
            for key, value in vars(part).items()
            if inspect.isfunction(value)
        }
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        return {"task": kind, "options": dict(vars(self)), "code": code}

    def __repr__(self) -> str:
        """Name and options."""
        options = ", ".join(f"{key}={value!r}" for key, value in vars(self).items())
        return f"{self.name}({options})" if options else self.name


def flat(answer: Tensor, labels: Tensor | None) -> Rows:
    """One row per position; values are the last dimension, or dimension 1 of images and maps.

    Args:
        answer: ``[batch]``, ``[batch, values]``, ``[batch, ..., values]``, or
            ``[batch, values, ...]`` where labels ``[batch, ...]`` or four dimensions say so.
        labels: Labels of the same batch, if any.
    """
    if answer.ndim == 1:
        answer = answer[:, None]
    spatial = labels is not None and labels.ndim > 1 and labels.shape[1:] == answer.shape[2:]
    if answer.ndim > 2 and (spatial or (labels is None and answer.ndim > 3)):
        answer = answer.movedim(1, -1)
    table = answer.float().reshape(-1, answer.shape[-1])
    return Rows(table, None if labels is None else labels.reshape(-1))


def joined(parts: list[Rows]) -> Rows:
    """The rows of several batches as one table."""
    labels = [part.labels for part in parts if part.labels is not None]
    return Rows(torch.cat([part.answers for part in parts]), torch.cat(labels) if labels else None)


def added(sums: dict[str, Tensor], more: Sums) -> dict[str, Tensor]:
    """Sums of two tallies."""
    return {key: sums[key] + value if key in sums else value for key, value in more.items()}
