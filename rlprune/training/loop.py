"""Training epoch by epoch: resumed exactly, the best or the last epoch kept."""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.data import Data
from rlprune.errors import TrainingError
from rlprune.identity import digest
from rlprune.progress import track
from rlprune.tasks.base import LOSS, added
from rlprune.training.blocks import recomputing
from rlprune.training.config import FineTune, Part, Pretrain, Recipe
from rlprune.training.evaluate import device_of, measured, tallied
from rlprune.training.optim import build_optimizer, learning_rate
from rlprune.training.precision import default_device, is_convolutional, use_bfloat16
from rlprune.training.record import AfterEpoch, Checkpoints, EpochRecord, weights_digest
from rlprune.training.step import Stepper
from rlprune.training.team import current

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What a training returns.

    Attributes:
        model: The network after the epoch that is kept, on the device the given one was on, in
            eval mode.
        best_epoch: The epoch that is kept. With ``keep="best"`` the one that is best on the
            held-out samples by the task's metric, ties broken by the loss; 0 means that the
            network was best before training. With ``keep="last"`` the last one.
        history: One row per epoch, the first for the network before training.
    """

    model: nn.Module
    best_epoch: int
    history: tuple[EpochRecord, ...]

    @property
    def holdout(self) -> dict[str, float]:
        """Metrics and loss of ``model`` on the held-out samples."""
        return self.history[self.best_epoch].holdout


def finetune(
    student: nn.Module,
    teacher: nn.Module | None,
    data: Data,
    config: FineTune | None = None,
    *,
    seed: int = 0,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    device: torch.device | str | None = None,
    callbacks: Sequence[AfterEpoch] = (),
    part: Part | None = None,
) -> TrainResult:
    """Train a pruned network, by default against the dense network's outputs.

    Args:
        student: The network to train; a copy is trained, this one stays as it is.
        teacher: The dense network; used in eval mode on a copy, never changed. None, or
            ``config.distill=False``, trains on labels alone.
        data: Training and held-out samples; the test split is not read.
        config: The recipe; None takes ``FineTune()``.
        seed: Decides order, augmentation and dropout.
        checkpoint_dir: Where every epoch is recorded; a training found there is resumed with the
            result it would have had uninterrupted. None records nothing.
        progress: Whether to draw a bar; None draws it on terminals.
        device: Where to train; None takes a GPU if there is one.
        callbacks: Called with the history after every epoch.
        part: Where these epochs lie in a longer training, whose learning rates and order of the
            samples they then have; None makes them a training of their own.

    Returns:
        The network of the epoch that the recipe keeps.

    Raises:
        TrainingError: The loss is not finite, or ``checkpoint_dir`` records another training.
        CheckpointError: The record cannot be read.
    """
    config = config if config is not None else FineTune()
    guide = teacher if config.distill else None
    training = _Training(student, guide, data, config, seed, device, "Fine-tuning", part)
    return training.run(checkpoint_dir, progress, callbacks)


def pretrain(
    model: nn.Module,
    data: Data,
    config: Pretrain | None = None,
    *,
    seed: int = 0,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    device: torch.device | str | None = None,
    callbacks: Sequence[AfterEpoch] = (),
) -> TrainResult:
    """Train a dense network on labels; arguments, result and errors as in ``finetune``.

    Args:
        model: The network to train; a copy is trained, this one stays as it is.
        data: Training and held-out samples; the test split is not read.
        config: The recipe; None takes ``Pretrain()``.
        seed: Decides order, augmentation and dropout, not the initial weights.
        checkpoint_dir: Where every epoch is recorded and resumed from; None records nothing.
        progress: Whether to draw a bar; None draws it on terminals.
        device: Where to train; None takes a GPU if there is one.
        callbacks: Called with the history after every epoch.

    Returns:
        The network of the epoch that the recipe keeps.
    """
    config = config if config is not None else Pretrain()
    training = _Training(model, None, data, config, seed, device, "Training")
    return training.run(checkpoint_dir, progress, callbacks)


@dataclass(frozen=True)
class _Trained:
    """An epoch: learning rate of its last step, metrics and loss, samples per second."""

    lr: float
    measured: dict[str, float]
    speed: float


class _Training:
    """One training: the network, its teacher, the optimizer and the history.

    In a team (see :mod:`rlprune.training.team`) the leader runs it, and every helper one of its
    own from the same arguments and the same state.
    """

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module | None,
        data: Data,
        config: Recipe,
        seed: int,
        device: torch.device | str | None,
        title: str,
        part: Part | None = None,
    ) -> None:
        self.team = current()
        self._arguments = (model, teacher, data, config, seed, device, title, part)
        self.home = device_of(model)
        self.device = self.team.device(default_device(device))
        self.reduced = use_bfloat16(config.autocast, self.device)
        self.data, self.config, self.seed, self.title = data, config, seed, title
        self.task = data.task
        self.part = part or Part(0, config.epochs)
        self.layout = config.channels_last and is_convolutional(model)
        self.model = self._place(model)
        self.teacher = None if teacher is None else self._place(teacher).eval()
        if self.teacher is not None:
            self.teacher.requires_grad_(False)
        self.steps = data.steps_per_epoch(config.batch_size)
        self._stepper = Stepper(
            self.model, self.teacher, self.task, config, self.reduced, self.layout, self.device,
            self.team,
        )  # fmt: skip
        self.history: list[EpochRecord] = []
        self.best_epoch = 0
        self.best: dict[str, Tensor] = {}

    @cached_property
    def identity(self) -> dict[str, str]:
        """What makes two trainings the same; the number of processes does not count."""
        model, teacher, data, config, seed, _, _, part = self._arguments
        found = {
            "configuration": str(sorted(config.identity().items())),
            "seed": str(seed),
            "data": digest({k: v for k, v in data.identity().items() if k != "test"}),
            "initial weights": weights_digest(model),
            "teacher weights": weights_digest(teacher),
        }
        return found if part is None else {**found, "part": f"{part.before} of {part.whole}"}

    def run(
        self,
        checkpoint_dir: str | os.PathLike[str] | None,
        progress: bool | None,
        callbacks: Sequence[AfterEpoch],
    ) -> TrainResult:
        """Train what a record on disk leaves to train; called in the leader alone."""
        recorder = Checkpoints(checkpoint_dir, self.identity)
        state = recorder.load()
        if self.team.size > 1:
            if self.config.batch_size < self.team.size:
                raise TrainingError(
                    f"batch_size={self.config.batch_size} leaves nothing for some of "
                    f"{self.team.size} processes; raise it, or start fewer"
                )
            model, teacher, data, *rest = self._arguments
            self.team.begin(_help, (model, teacher, data.for_training(), *rest), state)
        return self.train(state, recorder, progress, callbacks)

    def train(
        self,
        state: dict[str, Any] | None,
        recorder: Checkpoints,
        progress: bool | None,
        callbacks: Sequence[AfterEpoch],
    ) -> TrainResult:
        """Train from a state, or from the start; called in every process of the team."""
        optimizer = build_optimizer(self.model, self.config) if self.config.epochs else None
        if state is not None:
            self._restore(state, optimizer)
        else:
            self._measure(time.perf_counter(), None)
        for epoch in range(len(self.history), self.config.epochs + 1):
            started = time.perf_counter()
            blocks = recomputing(self.model) if self.config.checkpointing else nullcontext()
            with torch.backends.cudnn.flags(benchmark=False, deterministic=True), blocks:
                trained = self._epoch(epoch, optimizer, progress)
            self._measure(started, trained)
            recorder.save(self._state(optimizer))
            for callback in callbacks:
                callback(self.history)
        return self._result()

    def _epoch(
        self, epoch: int, optimizer: torch.optim.Optimizer | None, progress: bool | None
    ) -> _Trained:
        """Train one epoch."""
        if optimizer is None:
            raise TrainingError("a training of 0 epochs has no optimizer")
        self.model.train()
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        sums: dict[str, Tensor] = {}
        started, seen, lr = time.perf_counter(), 0, self.config.lr
        number, whole = self.part.before + epoch, self.part.whole
        batches = self.data.train_batches(
            number, self.config.batch_size, seed=self.seed, device=self.device, **self._share
        )
        metric = self.task.metric
        held = metric.show(self.history[-1].holdout[metric.name])
        title = f"{self.title} {number}/{whole} · held-out {metric.label} {held}"
        with _dropout_seed(self.seed, number, self.device, self.team.rank):
            for step, batch in enumerate(track(batches, title, total=self.steps, show=progress)):
                at = (number - 1) * self.steps + step
                lr = learning_rate(at, whole * self.steps, self.config)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                found = self._stepper(batch)
                if not torch.isfinite(found.loss):
                    raise TrainingError(
                        f"the loss is {found.loss.item()} in epoch {number}, step {step + 1} of "
                        f"{self.steps}, at learning rate {lr:.3g}; try a lower lr, grad_clip=1.0, "
                        "a longer warmup, or autocast=false"
                    )
                if self.config.grad_clip is not None:
                    nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
                optimizer.step()
                loss_sum += found.loss.double() * found.samples
                sums = added(sums, found.sums)
                seen += found.samples
        speed = seen / (time.perf_counter() - started)
        means = {**self.task.measures(self._whole(sums)), LOSS: loss_sum.item() / seen}
        return _Trained(lr, means, speed)

    @property
    def _share(self) -> dict[str, Any]:
        """Which part of the samples this process reads."""
        return {} if self.team.size == 1 else {"share": self.team.share}

    def _whole(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums over the rows of all processes, added in their order."""
        if self.team.size == 1:
            return sums
        found: dict[str, Tensor] = {}
        for part in self.team.gathered({name: value.cpu() for name, value in sums.items()}):
            found = {**found, **added(found, part)}
        return found

    def _measure(self, started: float, trained: _Trained | None) -> None:
        """Measure the held-out samples, add a row, keep the weights if the recipe says so."""
        task, sums = tallied(
            self.model,
            self.data.holdout_batches(device=self.device, **self._share),
            task=self.task,
            device=self.device,
            autocast=self.reduced,
        )
        held = measured(task, self._whole(sums))
        row = EpochRecord(
            epoch=len(self.history),
            lr=0.0 if trained is None else trained.lr,
            train={} if trained is None else trained.measured,
            holdout=held.values,
            seconds=time.perf_counter() - started,
            samples_per_second=0.0 if trained is None else trained.speed,
        )
        self.history.append(row)
        better = self._rank(row) > self._rank(self.history[self.best_epoch])
        if row.epoch == 0 or better or self.config.keep == "last":
            self.best_epoch = row.epoch
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        if trained is not None:
            metric = self.task.metric
            log.info(
                "%s: epoch %d of %d, loss %.4f, held-out %s %s, %.0f samples/s",
                self.title,
                self.part.before + row.epoch,
                self.part.whole,
                row.train[LOSS],
                metric.label,
                metric.show(row.holdout[metric.name]),
                row.samples_per_second,
            )

    def _rank(self, row: EpochRecord) -> tuple[float, float]:
        """What epochs are compared by, higher is better."""
        metric = self.task.metric
        return metric.score(row.holdout[metric.name]), -row.holdout[LOSS]

    def _state(self, optimizer: torch.optim.Optimizer | None) -> dict[str, object]:
        return {
            "model": self.model.state_dict(),
            "optimizer": None if optimizer is None else optimizer.state_dict(),
            "best_model": self.best,
            "best_epoch": self.best_epoch,
            "history": [asdict(row) for row in self.history],
        }

    def _restore(self, state: dict, optimizer: torch.optim.Optimizer | None) -> None:
        self.model.load_state_dict(state["model"])
        if optimizer is not None and state["optimizer"] is not None:
            optimizer.load_state_dict(state["optimizer"])
        self.best = {k: v.to(self.device) for k, v in state["best_model"].items()}
        self.best_epoch = state["best_epoch"]
        self.history = [EpochRecord(**row) for row in state["history"]]
        log.info("%s: resumed after epoch %d", self.title, len(self.history) - 1)

    def _result(self) -> TrainResult:
        metric = self.task.metric
        before, kept = (self.history[at].holdout[metric.name] for at in (0, self.best_epoch))
        if metric.worse(before, kept):
            log.warning(
                "%s: held-out %s %s from %s to %s. Where the network was given with weights that "
                "have seen these samples this is expected; else try a smaller lr, more epochs, or "
                "keep=best",
                self.title, metric.label, "fell" if metric.higher_is_better else "rose",
                metric.show(before), metric.show(kept),
            )  # fmt: skip
        self.model.load_state_dict(self.best)
        model = self.model.to(self.home).to(memory_format=torch.contiguous_format).eval()
        model.zero_grad(set_to_none=True)
        return TrainResult(model, self.best_epoch, tuple(self.history))

    def _place(self, model: nn.Module) -> nn.Module:
        placed = copy.deepcopy(model).to(self.device)
        return placed.to(memory_format=torch.channels_last) if self.layout else placed


def _help(arguments: tuple[Any, ...], state: dict[str, Any] | None) -> None:
    """A helper's part of a training."""
    _Training(*arguments).train(state, Checkpoints(None, {}), False, ())


@contextmanager
def _dropout_seed(seed: int, epoch: int, device: torch.device, rank: int) -> Iterator[None]:
    """Seed the generators that dropout draws from; restore them afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed * 1_000_003 + epoch + (rank << 40))
        yield
