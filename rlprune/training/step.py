"""One step of training: forward, loss and gradients, over parts of a batch and over processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rlprune import batches
from rlprune.batches import Batch, cut
from rlprune.errors import TrainingError
from rlprune.inputs import batch_size
from rlprune.tasks import Rows, Task
from rlprune.tasks.base import added
from rlprune.training.config import Recipe
from rlprune.training.losses import objective
from rlprune.training.precision import autocast, laid_out
from rlprune.training.statistics import SharedStatistics
from rlprune.training.team import Team

_PROBED = 2


@dataclass(frozen=True)
class Step:
    """What one step gave.

    Attributes:
        loss: Mean over the rows of the whole batch.
        sums: The task's tally of this process's rows.
        samples: Samples of the whole batch.
    """

    loss: Tensor
    sums: dict[str, Tensor]
    samples: int


class Stepper:
    """Computes the gradients of batches.

    In a team every process has a part of the batch. Losses are means over rows, so parts count by
    their rows: the gradient is that of the whole batch, however it is divided. Batch normalisation
    sees the parts of all processes together, but parts of ``accumulate`` one by one.

    Args:
        model: The network that is trained, on its device.
        teacher: The dense network, or None.
        task: What they are for.
        config: The recipe.
        reduced: Whether to run under bfloat16 autocast.
        layout: Whether images are laid out channels last.
        device: Where both are.
        team: The processes that train together.
    """

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module | None,
        task: Task,
        config: Recipe,
        reduced: bool,
        layout: bool,
        device: torch.device,
        team: Team,
    ) -> None:
        self.model, self.teacher, self.task, self.config = model, teacher, task, config
        self.reduced, self.layout, self.device, self.team = reduced, layout, device, team
        self._parallel: DistributedDataParallel | None = None
        self._called: Any = None

    def __call__(self, batch: Batch) -> Step:
        """Leave the gradients of a batch in the network's parameters.

        Args:
            batch: This process's part of it.
        """
        if self.layout:
            batch = laid_out(batch[0]), batch[1]
        if self._called is None:
            self._called = self._wrapped(batch)
        self.model.zero_grad(set_to_none=True)
        if self.team.size == 1 and self.config.accumulate == 1:
            loss, rows = self._loss(batch)
            loss.backward()
            return Step(loss.detach(), dict(self._tally(rows)), batch_size(batch[0]))
        return self._divided(batch)

    def _divided(self, batch: Batch) -> Step:
        """A step over parts: gradients of sums of losses, divided by all rows in the end."""
        samples = batch_size(batch[0])
        parts = _parts(batch, self.config.accumulate)
        told = torch.zeros(3, dtype=torch.float64, device=self.device)
        sums: dict[str, Tensor] = {}
        with SharedStatistics() if self.team.size > 1 else contextlib.nullcontext():
            for number, part in enumerate(parts):
                last = number == len(parts) - 1
                with contextlib.nullcontext() if last else self._unsynchronised():
                    loss, rows = self._loss(part)
                    total = loss * len(rows)
                    total.backward()
                told[0] += total.detach()
                told[1] += len(rows)
                sums = added(sums, self._tally(rows))
        told[2] = samples
        loss_sum, rows_in_all, samples_in_all = self.team.total(told)
        # Parallel training averages over the processes what is summed here.
        factor = float(self.team.size / rows_in_all)
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)
        return Step(loss_sum / rows_in_all, sums, int(samples_in_all))

    def _loss(self, batch: Batch) -> tuple[Tensor, Rows]:
        inputs, labels = batch
        guide: Rows | None = None
        if self.teacher is not None:
            with torch.no_grad(), autocast(self.device, self.reduced):
                guide = self.task.rows(self.task.answer(self.teacher, inputs), labels, inputs)
        with autocast(self.device, self.reduced):
            answer = self.task.answer(self._called, inputs)
        rows = self.task.rows(answer, labels, inputs)
        loss = objective(
            self.task,
            rows,
            guide,
            label_smoothing=self.config.label_smoothing,
            alpha=getattr(self.config, "distill_alpha", 0.0),
            temperature=getattr(self.config, "temperature", 1.0),
        )
        return loss, rows

    def _tally(self, rows: Rows) -> Any:
        return self.task.tally(Rows(rows.answers.detach(), rows.labels))

    def _unsynchronised(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self._parallel is None else self._parallel.no_sync()

    def _wrapped(self, batch: Batch) -> Callable[..., Any]:
        """The network as it is called: over the processes, compiled."""
        found: Any = self.model
        if self.team.size > 1:
            unused = any(self.team.gathered(self._leaves_out_parameters(batch)))
            found = self._parallel = DistributedDataParallel(
                self.model, find_unused_parameters=unused
            )
        if self.config.compile:
            found = torch.compile(found)
        return found

    def _leaves_out_parameters(self, batch: Batch) -> bool:
        """Whether an answer depends on fewer parameters than are trained."""
        with _unchanged(self.model, self.device):
            inputs, _ = cut(batch, slice(0, _PROBED))
            self.task.answer(self.model, inputs).sum().backward()
        found = any(p.requires_grad and p.grad is None for p in self.model.parameters())
        self.model.zero_grad(set_to_none=True)
        return found


def _parts(batch: Batch, count: int) -> list[Batch]:
    samples = batch_size(batch[0])
    if samples < count:
        raise TrainingError(
            f"a step has {samples} samples in each process, too few for accumulate={count}; raise "
            "batch_size, or lower accumulate"
        )
    return batches.split(batch, -(-samples // count))


@contextlib.contextmanager
def _unchanged(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Leave buffers and the generators that dropout draws from as they are."""
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
    with torch.no_grad():
        for buffer, before in kept:
            buffer.copy_(before)
