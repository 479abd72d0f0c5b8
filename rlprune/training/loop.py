"""Training epoch by epoch: resumed exactly, the best or the last epoch kept."""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from rlprune.data import Data
from rlprune.errors import TrainingError
from rlprune.identity import digest
from rlprune.progress import track
from rlprune.training.config import FineTune, Pretrain, Recipe
from rlprune.training.evaluate import device_of, evaluate
from rlprune.training.losses import logits_of, objective
from rlprune.training.optim import build_optimizer, learning_rate
from rlprune.training.precision import (
    autocast,
    default_device,
    is_convolutional,
    to_channels_last,
    use_bfloat16,
)
from rlprune.training.record import Callback, EpochRecord, Recorder, weights_digest

log = logging.getLogger(__name__)

_NOTICEABLE = 0.01


@dataclass(frozen=True)
class TrainResult:
    """What a training returns.

    Attributes:
        model: The network after the epoch that is kept, on the device the given one was on, in
            eval mode.
        best_epoch: The epoch that is kept. With ``keep="best"`` the one with the highest held-out
            accuracy, ties broken by the loss; 0 means that the network was best before training.
            With ``keep="last"`` the last one.
        history: One row per epoch, the first for the network before training.
    """

    model: nn.Module
    best_epoch: int
    history: tuple[EpochRecord, ...]

    @property
    def holdout_accuracy(self) -> float:
        """Held-out accuracy of ``model``, in [0, 1]."""
        return self.history[self.best_epoch].holdout_accuracy


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
    callbacks: Sequence[Callback] = (),
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

    Returns:
        The network of the epoch that the recipe keeps.

    Raises:
        TrainingError: The loss is not finite, or ``checkpoint_dir`` records another training.
        CheckpointError: The record cannot be read.
    """
    config = config if config is not None else FineTune()
    guide = teacher if config.distill else None
    return _Training(student, guide, data, config, seed, device, "Fine-tuning").run(
        checkpoint_dir, progress, callbacks
    )


def pretrain(
    model: nn.Module,
    data: Data,
    config: Pretrain | None = None,
    *,
    seed: int = 0,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    device: torch.device | str | None = None,
    callbacks: Sequence[Callback] = (),
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
    return _Training(model, None, data, config, seed, device, "Training").run(
        checkpoint_dir, progress, callbacks
    )


class _Training:
    """One training: the network, its teacher, the optimizer and the history."""

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module | None,
        data: Data,
        config: Recipe,
        seed: int,
        device: torch.device | str | None,
        title: str,
    ) -> None:
        self.home = device_of(model)
        self.device = default_device(device)
        self.reduced = use_bfloat16(config.autocast, self.device)
        self.data, self.config, self.seed, self.title = data, config, seed, title
        self.identity = {
            "configuration": str(sorted(asdict(config).items())),
            "seed": str(seed),
            "data": digest({k: v for k, v in data.identity().items() if k != "test"}),
            "initial weights": weights_digest(model),
            "teacher weights": weights_digest(teacher),
        }
        self.layout = config.channels_last and is_convolutional(model)
        self.model = self._place(model)
        self.teacher = None if teacher is None else self._place(teacher).eval()
        if self.teacher is not None:
            self.teacher.requires_grad_(False)
        self.steps = data.steps_per_epoch(config.batch_size)
        self.history: list[EpochRecord] = []
        self.best_epoch = 0
        self.best: dict[str, Tensor] = {}

    def run(
        self,
        checkpoint_dir: str | os.PathLike[str] | None,
        progress: bool | None,
        callbacks: Sequence[Callback],
    ) -> TrainResult:
        recorder = Recorder(checkpoint_dir, self.identity)
        optimizer = build_optimizer(self.model, self.config) if self.config.epochs else None
        state = recorder.load()
        if state is not None:
            self._restore(state, optimizer)
        else:
            self._measure(time.perf_counter(), None)
        for epoch in range(len(self.history), self.config.epochs + 1):
            started = time.perf_counter()
            with torch.backends.cudnn.flags(benchmark=False, deterministic=True):
                trained = self._epoch(epoch, optimizer, progress)
            self._measure(started, trained)
            recorder.save(self._state(optimizer))
            for callback in callbacks:
                callback(self.history)
        return self._result()

    def _epoch(
        self, epoch: int, optimizer: torch.optim.Optimizer | None, progress: bool | None
    ) -> tuple[float, float, float, float]:
        """Train one epoch; learning rate, mean loss, accuracy, images per second."""
        if optimizer is None:
            raise TrainingError("a training of 0 epochs has no optimizer")
        self.model.train()
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        right = torch.zeros((), dtype=torch.int64, device=self.device)
        started, seen, lr = time.perf_counter(), 0, self.config.lr
        batches = self.data.train_batches(
            epoch, self.config.batch_size, seed=self.seed, device=self.device
        )
        held = 100 * self.history[-1].holdout_accuracy
        title = f"{self.title} {epoch}/{self.config.epochs} · held-out {held:.1f} %"
        with _dropout_seed(self.seed, epoch, self.device):
            for step, (x, y) in enumerate(track(batches, title, total=self.steps, show=progress)):
                total = self.config.epochs * self.steps
                lr = learning_rate((epoch - 1) * self.steps + step, total, self.config)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                loss, hits = self._step(x, y, optimizer)
                if not torch.isfinite(loss):
                    raise TrainingError(
                        f"the loss is {loss.item()} in epoch {epoch}, step {step + 1} of "
                        f"{self.steps}, at learning rate {lr:.3g}; try a lower lr, grad_clip=1.0, "
                        "a longer warmup, or autocast=false"
                    )
                loss_sum += loss.double() * len(y)
                right += hits
                seen += len(y)
        speed = seen / (time.perf_counter() - started)
        return lr, loss_sum.item() / seen, right.item() / seen, speed

    def _step(
        self, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer
    ) -> tuple[Tensor, Tensor]:
        y = y.long()
        if self.layout:
            x = to_channels_last(x)
        guide: Tensor | None = None
        if self.teacher is not None:
            with torch.inference_mode(), autocast(self.device, self.reduced):
                guide = logits_of(self.teacher(x))
            guide = guide.clone()
        with autocast(self.device, self.reduced):
            output = self.model(x)
        logits = logits_of(output)
        loss = objective(
            logits,
            y,
            guide,
            label_smoothing=self.config.label_smoothing,
            alpha=getattr(self.config, "distill_alpha", 0.0),
            temperature=getattr(self.config, "temperature", 1.0),
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        optimizer.step()
        return loss.detach(), (logits.detach().argmax(1) == y).sum()

    def _measure(self, started: float, trained: tuple[float, float, float, float] | None) -> None:
        """Measure the held-out samples, add a row, keep the weights if the recipe says so."""
        held = evaluate(
            self.model,
            self.data.holdout_batches(device=self.device),
            device=self.device,
            autocast=self.reduced,
        )
        lr, loss, accuracy, speed = trained or (0.0, float("nan"), float("nan"), 0.0)
        row = EpochRecord(
            epoch=len(self.history),
            lr=lr,
            train_loss=loss,
            train_accuracy=accuracy,
            holdout_loss=held.loss,
            holdout_accuracy=held.accuracy,
            seconds=time.perf_counter() - started,
            images_per_second=speed,
        )
        self.history.append(row)
        best = self.history[self.best_epoch]
        better = (row.holdout_accuracy, -row.holdout_loss) > (
            best.holdout_accuracy,
            -best.holdout_loss,
        )
        if row.epoch == 0 or better or self.config.keep == "last":
            self.best_epoch = row.epoch
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        if trained is not None:
            log.info(
                "%s: epoch %d of %d, loss %.4f, held-out accuracy %.4f, %.0f images/s",
                self.title,
                row.epoch,
                self.config.epochs,
                row.train_loss,
                row.holdout_accuracy,
                row.images_per_second,
            )

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
        before, kept = (self.history[at].holdout_accuracy for at in (0, self.best_epoch))
        if kept < before - _NOTICEABLE:
            log.warning(
                "%s: held-out accuracy fell from %.4f to %.4f. Where the network was given with "
                "weights that have seen these samples this is expected; else try a smaller lr, "
                "more epochs, or keep=best",
                self.title, before, kept,
            )  # fmt: skip
        self.model.load_state_dict(self.best)
        model = self.model.to(self.home).to(memory_format=torch.contiguous_format).eval()
        model.zero_grad(set_to_none=True)
        return TrainResult(model, self.best_epoch, tuple(self.history))

    def _place(self, model: nn.Module) -> nn.Module:
        placed = copy.deepcopy(model).to(self.device)
        return placed.to(memory_format=torch.channels_last) if self.layout else placed


@contextmanager
def _dropout_seed(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """Seed the generators that dropout draws from; restore them afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed * 1_000_003 + epoch)
        yield
