"""``Data``: training, held-out, calibration and test samples behind one interface."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rlprune import tasks
from rlprune.batches import LABELS, Batch, cut
from rlprune.data.augment import BATCHED, check_augmentation
from rlprune.data.collate import concatenate
from rlprune.data.sources import Reader, Source, draw, unopened
from rlprune.data.splits import WHOLE, Normalise, Share, Split, StreamSplit, TensorSplit
from rlprune.errors import ConfigError, DataError
from rlprune.inputs import tensors_in
from rlprune.tasks import Task

log = logging.getLogger(__name__)

EVAL_BATCH = 256
_TENSOR_LIMIT = 8 * 2**30


class Data:
    """What the search and the fine-tuning read.

    The held-out part is drawn from ``train`` with a seed, balanced by class, and never trained on;
    the calibration samples are drawn from what is left. The test split is opened only when
    ``test_batches`` is called.

    Args:
        train: An ``(x, y)`` pair of tensors (uint8 images are scaled to [0, 1]), x also a tuple or
            mapping of tensors; a mapping of tensors with ``labels``; a map-style data set of
            ``(x, y)``, ``(x, x, y)`` or mappings (Hugging Face ``datasets``), a loader of such
            batches, or a function that returns one of these.
        calibration: Samples for BN statistics and reconstruction; None draws them from ``train``.
        test: The test split, best as a function so that it is not read before the final report.
        holdout: Share of ``train`` to hold out in (0, 1), a number of samples, or samples of their
            own in any form that ``train`` accepts.
        task: What the network is for: a name of :data:`rlprune.tasks.TASKS`, a mapping with
            options, a :class:`rlprune.tasks.Task`; None infers it from the samples.
        num_classes: Values a network answers with per row: classes, targets, tokens; None infers
            it from the class names or labels, where they tell.
        class_names: Names by class number.
        augmentation: ``none``, ``crop``, ``crop_flip``, or ``imagenet`` (streamed folders only).
        mean: Per-channel mean subtracted from inputs; None subtracts nothing.
        std: Per-channel standard deviation inputs are divided by.
        pad: Number of the padding token, for texts of different lengths.
        facts: What networks for this data have to know (``vocab_size``, ``in_features``, ...);
            filled in where a network is built by name.
        workers: Loader processes for data sets that are read sample by sample.
        seed: Decides the held-out and calibration samples.
        name: Shown in messages and reports.

    Attributes:
        task: What the network is for.
        num_classes: Values a network answers with per row; None where nothing tells.

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
        task: Any = None,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        augmentation: str = "none",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        pad: int = 0,
        facts: dict[str, Any] | None = None,
        workers: int = 0,
        seed: int = 0,
        name: str = "data",
    ) -> None:
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise ConfigError(f"{name}: seed={seed!r}: give a whole number")
        if num_classes is not None and (not isinstance(num_classes, int) or num_classes < 1):
            raise ConfigError(f"{name}: num_classes={num_classes!r}: give a whole number from 1")
        self.name, self.seed, self.pad = name, seed, pad
        self.facts = dict(facts or {})
        self.augmentation = check_augmentation(augmentation)
        chosen = tasks.resolve(task)
        self._reader = Reader(Normalise(mean, std), workers, pad=pad)
        if chosen is not None:
            self._reader.unpack = chosen.unpack
        full = self._reader.split(train, f"{name} train")
        self.task: Task = chosen or _obvious(full, name)
        self.class_names = _class_names(class_names, train)
        self._asked = num_classes
        self.num_classes = self._outputs(full)
        self._check(full, "train")
        generator = torch.Generator().manual_seed(seed)
        strata = None if full.labels is None else self.task.strata(full.labels)
        if isinstance(holdout, (int, float)):
            held, left = draw(len(full), _held(holdout, len(full)), strata, generator)
            self._train, self._holdout = full.subset(left), full.subset(held)
        else:
            self._train, self._holdout = full, self._split(holdout, "holdout")
        self._calibration_order: Tensor | None = None
        if calibration is None:
            self._calibration: Split = self._train
            labels = self._train.labels
            strata = None if labels is None else self.task.strata(labels)
            self._calibration_order, _ = draw(len(self._train), len(self._train), strata, generator)
        else:
            self._calibration = self._split(calibration, "calibration")
        self._test_source = test
        self._check_augmentation()

    @classmethod
    def of(cls, value: Any) -> Data:
        """What a user hands over where data is asked for.

        Args:
            value: Data; keyword arguments of :class:`Data` as a mapping with ``train``; or training
                samples alone, in any form that ``train`` accepts.

        Raises:
            DataError: It is none of these.
        """
        if isinstance(value, Data):
            return value
        if isinstance(value, Mapping) and "train" in value:
            try:
                return cls(**value)
            except TypeError as error:
                raise DataError(f"data: {error}; its options are those of rlprune.Data") from error
        return cls(train=value)

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
                "task": self.task,
                "classes": self.num_classes,
                "seed": self.seed,
            },
            "augmentation": self.augmentation,
            "test": unopened(self._test_source),
        }

    def for_task(self, task: Any) -> Data:
        """The same samples and splits for another task, or with other options of the same.

        Args:
            task: As the argument ``task``; None or ``auto`` returns this data, and so does the
                name of its own task without options.

        Raises:
            DataError: The labels do not suit the task.
        """
        chosen = tasks.resolve(task)
        if chosen is None or _is_name(task, self.task.name):
            return self
        other = copy.copy(self)
        other.__dict__.pop("_test", None)
        other.task = chosen
        other._reader = copy.copy(self._reader)
        other._reader.unpack = chosen.unpack
        splits = ("_train", "_holdout", "_calibration")
        copies = {id(split): copy.copy(split) for split in (getattr(self, s) for s in splits)}
        for split in copies.values():
            split.unpack = chosen.unpack
        for role in splits:
            setattr(other, role, copies[id(getattr(self, role))])
        other.num_classes = other._outputs(other._train)
        for role in splits:
            other._check(getattr(other, role), role[1:])
        return other

    def for_training(self) -> Data:
        """The same samples without the test split and what was gathered, for another process."""
        other = copy.copy(self)
        for gathered in ("holdout", "_test"):
            other.__dict__.pop(gathered, None)
        other._test_source = None
        return other

    @cached_property
    def example_inputs(self) -> Any:
        """One normalised sample: a tensor ``[1, ...]``, or a nest of them."""
        return self.example[0]

    @cached_property
    def example(self) -> Batch:
        """One normalised sample with its label."""
        return next(self._calibration.batches(torch.arange(1), 1))

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
        share: Share = WHOLE,
    ) -> Iterator[Batch]:
        """Augmented training batches of one epoch, in an order of its own.

        Args:
            epoch: Epoch number; with ``seed`` it decides order and augmentation.
            batch_size: Samples per batch; a smaller last batch is left out.
            seed: Seed of the training run.
            device: Where the batches go.
            share: ``(k, n)`` yields the ``k``-th of ``n`` parts of every batch, for one of ``n``
                processes that train together.

        Yields:
            Normalised inputs ``[batch_size, ...]`` and labels ``[batch_size, ...]``.
        """
        mixed = _mix(seed, epoch)
        generator = torch.Generator().manual_seed(mixed)
        order = torch.randperm(self.train_size, generator=generator)
        order = order[: self.steps_per_epoch(batch_size) * batch_size]
        yield from self._train.batches(
            order,
            batch_size,
            augmentation=self.augmentation,
            seed=mixed + 1,
            device=device,
            share=share,
        )

    def holdout_batches(
        self,
        batch_size: int = EVAL_BATCH,
        *,
        device: torch.device | str = "cpu",
        share: Share = WHOLE,
    ) -> Iterator[Batch]:
        """Held-out samples in a fixed order, classes mixed, not augmented.

        With a share ``(k, n)``, every ``n``-th batch, beginning with the ``k``-th.
        """
        order = torch.arange(self.holdout_size)
        if share != WHOLE:
            order = torch.cat([order[:0], *order.split(batch_size)[share[0] :: share[1]]])
            if not len(order):  # fewer batches than processes
                return
        yield from self._holdout.batches(order, batch_size, device=device)

    @cached_property
    def holdout(self) -> tuple[Any, Tensor]:
        """All held-out samples ``(x, y)``, normalised, on the CPU; every prefix is balanced.

        Texts are padded to the longest.

        Raises:
            DataError: They would take more than 8 GiB.
        """
        return self._gather(self._holdout, torch.arange(self.holdout_size), "holdout")

    def held_out(self, n: int) -> tuple[Any, Tensor]:
        """The first held-out samples ``(x, y)``, normalised, on the CPU, balanced.

        Args:
            n: How many; all there are when fewer. No more are read.
        """
        if "holdout" in self.__dict__ or n >= self.holdout_size:
            inputs, labels = cut(self.holdout, slice(0, n))
            assert labels is not None
            return inputs, labels
        return self._gather(self._holdout, torch.arange(n), "holdout")

    def calibration(self, n: int = 512) -> tuple[Any, Tensor]:
        """Calibration samples, not augmented; none of them is held out.

        Args:
            n: How many; all there are when fewer.

        Returns:
            ``(x, y)``, normalised, on the CPU; texts are padded to the longest.
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
        split = self._reader.split(source, f"{self.name} {role}")
        self._check(split, role)
        self._check_shape(split, f"{self.name} {role}")
        return split

    def _check(self, split: Split, role: str) -> None:
        if split.labels is not None:
            where = f"{self.name} {role}"
            self.task.check(split.labels, self.num_classes, where, self.class_names)

    def _outputs(self, split: Split) -> int | None:
        """Values per row that a network for this data answers with."""
        if self._asked is not None:
            return self._asked
        if self.class_names is not None and self.task.classes:
            return len(self.class_names)
        known = split.labels
        found = self.task.outputs(self._first(split) if known is None else known)
        if known is None and found is not None and self.task.classes:
            raise DataError(
                f"{self.name}: the labels are not known without reading; give num_classes="
            )
        return found

    @staticmethod
    def _first(split: Split) -> Tensor:
        labels = next(split.batches(torch.arange(1), 1))[1]
        assert labels is not None
        return labels

    def _check_shape(self, split: Split, label: str) -> None:
        train = self._train if hasattr(self, "_train") else None
        if not (isinstance(split, TensorSplit) and isinstance(train, TensorSplit)):
            return
        if not (isinstance(split.x, Tensor) and isinstance(train.x, Tensor)):
            return
        text = not train.x.is_floating_point() and train.x.ndim == 2  # any length will do
        if not text and split.x.shape[1:] != train.x.shape[1:]:
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
        shape = (
            tuple(train.x.shape)
            if isinstance(train, TensorSplit) and isinstance(train.x, Tensor)
            else None
        )
        if (
            self.augmentation in BATCHED
            and isinstance(train, TensorSplit)
            and (shape is None or len(shape) != 4)
        ):
            raise ConfigError(
                f"augmentation {self.augmentation!r} needs images [N, C, H, W]; {self.name} has "
                f"samples of shape {None if shape is None else shape[1:]}; use 'none'"
            )

    def _gather(self, split: Split, order: Tensor, role: str) -> tuple[Any, Tensor]:
        need = 4 * len(order) * sum(tensor.numel() for tensor in tensors_in(self.example_inputs))
        if need > _TENSOR_LIMIT:
            raise DataError(
                f"{self.name} {role}: {len(order)} samples take {need / 2**30:.1f} GiB as tensors; "
                f"hold out or ask for at most {_TENSOR_LIMIT * len(order) // need}"
            )
        parts = [
            {"inputs": inputs, "labels": labels}
            for inputs, labels in split.batches(order, EVAL_BATCH)
        ]
        whole = concatenate(parts, self.pad)
        labels: Tensor = whole["labels"]
        return whole["inputs"], labels if labels.is_floating_point() else labels.long()

    def __repr__(self) -> str:
        """Name, sizes, classes and the shape of a sample."""
        shapes = [tuple(tensor.shape[1:]) for tensor in tensors_in(self.example_inputs)]
        return (
            f"Data({self.name!r}, train={self.train_size}, holdout={self.holdout_size}, "
            f"task={self.task!r}, classes={self.num_classes}, "
            f"shape={shapes[0] if len(shapes) == 1 else shapes})"
        )


def _is_name(task: Any, name: str) -> bool:
    """Whether a task was given by this name, without an option."""
    if isinstance(task, Mapping):
        return task.get("name") == name and all(task[k] is None for k in task if k != "name")
    return isinstance(task, str) and task == name


def _obvious(split: Split, name: str) -> Task:
    """The task that the first sample and the labels stand for."""
    inputs, labels = next(split.batches(torch.arange(1), 1))
    return tasks.infer(inputs, labels, name)


def _held(holdout: float | int, size: int) -> int:
    usable = not isinstance(holdout, float) or 0 < holdout < 1
    count = holdout if isinstance(holdout, int) else round(holdout * size) if usable else 0
    if not usable or not 0 < count < size:
        left = count if usable else "no number"
        raise ConfigError(
            f"holdout={holdout} leaves {left} of {size} training samples "
            f"held out; give a share in (0, 1) or a number from 1 to {size - 1}"
        )
    return count


def _class_names(given: Sequence[str] | None, train: Source) -> tuple[str, ...] | None:
    """Names as given, of torchvision data sets, or of a Hugging Face ``ClassLabel`` column."""
    found = given if given is not None else getattr(train, "classes", None)
    features = getattr(train, "features", None)
    if found is None and isinstance(features, dict):
        found = next(
            (getattr(features[key], "names", None) for key in LABELS if key in features), None
        )
    return None if found is None else tuple(str(name) for name in found)


def _mix(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) * 2 + 1
