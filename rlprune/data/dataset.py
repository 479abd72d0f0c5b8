"""``Data``: training, held-out, calibration and test samples behind one interface."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rlprune.data.augment import BATCHED, check_augmentation
from rlprune.data.sources import Source, draw, to_split, unopened
from rlprune.data.splits import Batch, Normalise, Split, StreamSplit, TensorSplit
from rlprune.errors import ConfigError, DataError

log = logging.getLogger(__name__)

EVAL_BATCH = 256
_TENSOR_LIMIT = 8 * 2**30


class Data:
    """What the search and the fine-tuning read.

    The held-out part is drawn from ``train`` with a seed, by class, and never trained on; the
    calibration samples are drawn from what is left. The test split is opened only when
    ``test_batches`` is called.

    Args:
        train: An ``(x, y)`` pair of tensors (uint8 images are scaled to [0, 1]), a map-style data
            set of ``(x, y)``, a loader of such batches, or a function that returns one of these.
        calibration: Samples for BN statistics and reconstruction; None draws them from ``train``.
        test: The test split, best as a function so that it is not read before the final report.
        holdout: Share of ``train`` to hold out in (0, 1), a number of samples, or samples of their
            own in any form that ``train`` accepts.
        num_classes: Number of classes; None infers it from the class names or labels.
        class_names: Names by class number.
        augmentation: ``none``, ``crop``, ``crop_flip``, or ``imagenet`` (streamed folders only).
        mean: Per-channel mean subtracted from inputs; None subtracts nothing.
        std: Per-channel standard deviation inputs are divided by.
        workers: Loader processes for data sets that are read sample by sample.
        seed: Decides the held-out and calibration samples.
        name: Shown in messages and reports.

    Raises:
        DataError: A split is empty or malformed, a label is out of range.
        ConfigError: An option is out of its range.
    """

    def __init__(
        self,
        train: Source,
        calibration: Source | None = None,
        test: Source | None = None,
        *,
        holdout: float | int | Source = 0.1,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        augmentation: str = "none",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        workers: int = 0,
        seed: int = 0,
        name: str = "data",
    ) -> None:
        self.name, self.seed = name, seed
        self.augmentation = check_augmentation(augmentation)
        self._normalise = Normalise(mean, std)
        self._workers = workers
        full = self._split(train, "train")
        self.class_names = _class_names(class_names, train)
        self.num_classes = _count_classes(num_classes, self.class_names, full.labels, name)
        _check_labels(full.labels, self.num_classes, f"{name} train", self.class_names)
        generator = torch.Generator().manual_seed(seed)
        if isinstance(holdout, (int, float)):
            held, left = draw(len(full), _held(holdout, len(full)), full.labels, generator)
            self._train, self._holdout = full.subset(left), full.subset(held)
        else:
            self._train, self._holdout = full, self._split(holdout, "holdout")
        self._calibration_order: Tensor | None = None
        if calibration is None:
            self._calibration: Split = self._train
            self._calibration_order, _ = draw(
                len(self._train), len(self._train), self._train.labels, generator
            )
        else:
            self._calibration = self._split(calibration, "calibration")
        self._test_source = test
        self._check_augmentation()

    def identity(self) -> dict[str, Any]:
        """What results depend on (see :mod:`rlprune.identity`), by what reads it.

        Returns:
            ``samples``: what a search and a training read, with content, normalisation and seed;
            ``augmentation``: what only a training applies; ``test``: what only the report reads,
            without reading it.
        """
        own = self._calibration is not self._train
        return {
            "samples": {
                "train": self._train,
                "holdout": self._holdout,
                "calibration": self._calibration if own else self._calibration_order,
                "classes": self.num_classes,
                "seed": self.seed,
            },
            "augmentation": self.augmentation,
            "test": unopened(self._test_source),
        }

    @cached_property
    def example_inputs(self) -> Tensor:
        """One normalised sample ``[1, ...]``."""
        x, _ = next(self._calibration.batches(torch.arange(1), 1))
        return x

    @property
    def train_size(self) -> int:
        """Number of samples trained on, the held-out ones not counted."""
        return len(self._train)

    @property
    def holdout_size(self) -> int:
        """Number of held-out samples."""
        return len(self._holdout)

    @property
    def has_test(self) -> bool:
        """Whether there is a test split; does not open it."""
        return self._test_source is not None

    def steps_per_epoch(self, batch_size: int) -> int:
        """Number of batches that ``train_batches`` yields."""
        return max(1, self.train_size // batch_size)

    def train_batches(
        self,
        epoch: int,
        batch_size: int = 128,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> Iterator[Batch]:
        """Augmented training batches of one epoch, in an order of its own.

        Args:
            epoch: Epoch number; with ``seed`` it decides order and augmentation.
            batch_size: Samples per batch; a smaller last batch is left out.
            seed: Seed of the training run.
            device: Where the batches go.

        Yields:
            ``(x, y)``, normalised inputs ``[batch_size, ...]`` and labels ``[batch_size]``.
        """
        mixed = _mix(seed, epoch)
        generator = torch.Generator().manual_seed(mixed)
        order = torch.randperm(self.train_size, generator=generator)
        order = order[: self.steps_per_epoch(batch_size) * batch_size]
        yield from self._train.batches(
            order, batch_size, augmentation=self.augmentation, seed=mixed + 1, device=device
        )

    def holdout_batches(
        self, batch_size: int = EVAL_BATCH, *, device: torch.device | str = "cpu"
    ) -> Iterator[Batch]:
        """Held-out samples in a fixed order, classes mixed, not augmented."""
        order = torch.arange(self.holdout_size)
        yield from self._holdout.batches(order, batch_size, device=device)

    @cached_property
    def holdout(self) -> Batch:
        """All held-out samples ``(x, y)``, normalised, on the CPU; every prefix is balanced.

        Raises:
            DataError: They would take more than 8 GiB.
        """
        return self._gather(self._holdout, torch.arange(self.holdout_size), "holdout")

    def calibration(self, n: int = 512) -> Batch:
        """Calibration samples, not augmented; none of them is held out.

        Args:
            n: How many; all there are when fewer.

        Returns:
            ``(x, y)``, normalised, on the CPU.
        """
        if n < 1:
            raise ConfigError(f"calibration: n must be at least 1, got {n}")
        order = self._calibration_order
        chosen = torch.arange(len(self._calibration))[:n] if order is None else order[:n]
        return self._gather(self._calibration, chosen, "calibration")

    def test_batches(
        self, batch_size: int = EVAL_BATCH, *, device: torch.device | str = "cpu"
    ) -> Iterator[Batch]:
        """The test split, in order, opened now.

        Raises:
            DataError: There is none, or it does not fit the training split.
        """
        test = self._test
        yield from test.batches(torch.arange(len(test)), batch_size, device=device)

    @cached_property
    def _test(self) -> Split:
        if self._test_source is None:
            raise DataError(f"{self.name} has no test split; give Data(test=...)")
        split = self._split(self._test_source, "test")
        log.info("%s: reading the test split (%d samples)", self.name, len(split))
        return split

    def _split(self, source: Source, role: str) -> Split:
        label = f"{self.name} {role}"
        split = to_split(source, label, self._normalise, self._workers)
        if role != "train":
            _check_labels(split.labels, self.num_classes, label, self.class_names)
            self._check_shape(split, label)
        return split

    def _check_shape(self, split: Split, label: str) -> None:
        train = self._train if hasattr(self, "_train") else None
        if not (isinstance(split, TensorSplit) and isinstance(train, TensorSplit)):
            return
        if split.x.shape[1:] != train.x.shape[1:]:
            raise DataError(
                f"{label} samples have shape {tuple(split.x.shape[1:])}, the training samples "
                f"{tuple(train.x.shape[1:])}; give size= to resize images to one size"
            )

    def _check_augmentation(self) -> None:
        train = self._train
        if self.augmentation == "imagenet" and not (
            isinstance(train, StreamSplit) and train.train_set is not train.eval_set
        ):
            raise ConfigError(
                f"augmentation 'imagenet' needs a streamed image folder, {self.name} is not one; "
                "use 'crop_flip', or put the transforms into your data set"
            )
        if self.augmentation in BATCHED and isinstance(train, TensorSplit) and train.x.dim() != 4:
            raise ConfigError(
                f"augmentation {self.augmentation!r} needs images [N, C, H, W]; {self.name} has "
                f"samples of shape {tuple(train.x.shape[1:])}; use 'none'"
            )

    def _gather(self, split: Split, order: Tensor, role: str) -> Batch:
        need = 4 * len(order) * self.example_inputs.numel()
        if need > _TENSOR_LIMIT:
            raise DataError(
                f"{self.name} {role}: {len(order)} samples take {need / 2**30:.1f} GiB as tensors; "
                f"hold out or ask for at most {_TENSOR_LIMIT * len(order) // need}"
            )
        xs, ys = zip(*split.batches(order, EVAL_BATCH), strict=True)
        return torch.cat(xs), torch.cat(ys).long()

    def __repr__(self) -> str:
        """Name, sizes, classes and the shape of a sample."""
        shape = tuple(self.example_inputs.shape[1:])
        return (
            f"Data({self.name!r}, train={self.train_size}, holdout={self.holdout_size}, "
            f"classes={self.num_classes}, shape={shape})"
        )


def _held(holdout: float | int, size: int) -> int:
    count = round(holdout * size) if isinstance(holdout, float) else holdout
    if (isinstance(holdout, float) and not 0 < holdout < 1) or not 0 < count < size:
        raise ConfigError(
            f"holdout={holdout} leaves {count} of {size} training samples held out; give a share "
            f"in (0, 1) or a number from 1 to {size - 1}"
        )
    return count


def _class_names(given: Sequence[str] | None, train: Source) -> tuple[str, ...] | None:
    found = given if given is not None else getattr(train, "classes", None)
    return None if found is None else tuple(str(name) for name in found)


def _count_classes(
    given: int | None, names: tuple[str, ...] | None, labels: Tensor | None, where: str
) -> int:
    if given is not None:
        return given
    if names is not None:
        return len(names)
    if labels is None:
        raise DataError(f"{where}: the labels are not known without reading; give num_classes=")
    if labels.is_floating_point():
        raise DataError(_not_classes(labels, where))
    return int(labels.max()) + 1


def _check_labels(
    labels: Tensor | None, num_classes: int, where: str, names: tuple[str, ...] | None
) -> None:
    if labels is None:
        return
    if labels.is_floating_point():
        raise DataError(_not_classes(labels, where))
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        position = int((labels == wrong).nonzero()[0])
        raise DataError(
            f"{where}: sample {position} has label {wrong}, but with {num_classes} classes labels "
            f"go from 0 to {num_classes - 1}; renumber them or set num_classes"
        )


def _not_classes(labels: Tensor, where: str) -> str:
    return f"{where}: labels are {labels.dtype}, expected integer class numbers [N]"


def _mix(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) * 2 + 1
