"""The two forms a split is held in: tensors in memory, or a data set read sample by sample."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rlprune.batches import Batch, cut, trimmed
from rlprune.batches import unpack as unpack_batch
from rlprune.data.augment import augment
from rlprune.errors import DataError
from rlprune.inputs import ExampleInputs, map_tensors, tensors_in, to_device

_READ = 32

Share = tuple[int, int]
"""Which part of every batch: its number, and how many parts there are."""
WHOLE: Share = (0, 1)


class Split(Protocol):
    """A set of labelled samples that yields batches, the same ones for the same seed."""

    @property
    def labels(self) -> Tensor | None:
        """Labels ``[N, ...]`` where they are known without reading the samples."""

    unpack: Callable[[Any], Batch]

    def __len__(self) -> int: ...

    def identity(self) -> Any:
        """What tells its samples from others (see :mod:`rlprune.identity`)."""

    def subset(self, indices: Tensor) -> Split:
        """The samples at ``indices``, in that order."""

    def batches(
        self,
        order: Tensor,
        batch_size: int,
        *,
        augmentation: str = "none",
        seed: int = 0,
        device: torch.device | str = "cpu",
        share: Share = WHOLE,
    ) -> Iterator[Batch]:
        """Normalised batches of the samples at ``order``; ``seed`` decides the augmentation.

        With a share ``(k, n)`` the batches are the ``k``-th of ``n`` parts of those of all samples.
        """


def _channels(name: str, values: Sequence[float] | None) -> Tensor | None:
    if values is None:
        return None
    try:
        found = torch.tensor(values, dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}={values!r}: give one number per channel") from error
    if not bool(torch.isfinite(found).all()):
        raise DataError(f"{name} must be finite, got {found.tolist()}")
    return found


class Normalise:
    """Turn stored samples into network inputs: uint8 to [0, 1], then ``(x - mean) / std``.

    Args:
        mean: Per-channel mean, or None.
        std: Per-channel standard deviation, or None.
    """

    def __init__(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        self.mean, self.std = _channels("mean", mean), _channels("std", std)

    def identity(self) -> Any:
        """Mean and standard deviation."""
        pair = {"mean": self.mean, "std": self.std}
        return {name: None if value is None else value.tolist() for name, value in pair.items()}

    @property
    def _asked(self) -> bool:
        return self.mean is not None or self.std is not None

    def check(self, inputs: ExampleInputs) -> None:
        """Raise DataError when mean or std do not fit the inputs ``[N, C, ...]``."""
        if self.std is not None and not bool((self.std > 0).all()):
            raise DataError(f"std must be positive, got {self.std.tolist()}")
        if not isinstance(inputs, Tensor):
            if self._asked and len(tensors_in(inputs)) > 1:
                raise DataError(
                    "mean and std are for data with one input tensor; normalise several inputs "
                    "before you hand them over"
                )
            return
        shape = inputs.shape[1:]
        for name, value in (("mean", self.mean), ("std", self.std)):
            if value is not None and value.numel() not in (1, shape[0]):
                raise DataError(
                    f"{name} has {value.numel()} values but samples of shape {tuple(shape)} have "
                    f"{shape[0]} channels; give one value, or one per channel"
                )

    def __call__(self, inputs: Any) -> Any:
        """Normalise inputs; integer types other than uint8 (tokens) pass unchanged.

        Among several inputs only images ``[N, C, H, W]`` of uint8 are scaled.
        """
        if isinstance(inputs, Tensor):
            return self._one(inputs)
        if self._asked:
            return map_tensors(inputs, self._one)
        return map_tensors(inputs, lambda tensor: self._one(tensor) if tensor.ndim == 4 else tensor)

    def _one(self, x: Tensor) -> Tensor:
        if x.dtype != torch.uint8 and not x.is_floating_point():
            return x
        scale = 255.0 if x.dtype == torch.uint8 else 1.0
        if self.mean is None and self.std is None:
            return x.float() / scale if scale != 1.0 else x
        mean = self.mean if self.mean is not None else torch.zeros(1)
        std = self.std if self.std is not None else torch.ones(1)
        shape = (1, -1) + (1,) * (x.dim() - 2)
        factor = (1.0 / (scale * std)).view(shape).to(x.device)
        offset = (-mean / std).view(shape).to(x.device)
        return torch.addcmul(offset, x.float(), factor)


class TensorSplit:
    """Samples and labels in memory; an epoch is indexing, cropping and one multiply-add.

    Args:
        x: ``[N, ...]``; uint8 for images, floating point, or integers for tokens; or a nest of
            such tensors.
        y: Labels ``[N, ...]``.
        normalise: Applied to every batch.
    """

    def __init__(self, x: Any, y: Tensor, normalise: Normalise) -> None:
        self.x, self.y, self.normalise = x, y, normalise
        self.unpack: Callable[[Any], Batch] = unpack_batch
        self._on_device: dict[str, tuple[Any, Tensor]] = {}

    @property
    def labels(self) -> Tensor | None:
        """Labels ``[N, ...]``."""
        return self.y

    def __len__(self) -> int:
        return len(self.y)

    def identity(self) -> Any:
        """Samples, labels and normalisation."""
        return {"x": self.x, "y": self.y, "normalise": self.normalise}

    def subset(self, indices: Tensor) -> TensorSplit:
        """The samples at ``indices``, copied."""
        inputs, labels = cut((self.x, self.y), indices)
        assert labels is not None
        return TensorSplit(inputs, labels, self.normalise)

    def batches(
        self,
        order: Tensor,
        batch_size: int,
        *,
        augmentation: str = "none",
        seed: int = 0,
        device: torch.device | str = "cpu",
        share: Share = WHOLE,
    ) -> Iterator[Batch]:
        """Normalised batches on ``device``; the stored samples move there once."""
        samples = self._at(torch.device(device))
        generator = torch.Generator().manual_seed(seed)
        for whole in order.split(batch_size):
            chosen, start = part_of(whole, share)
            inputs, labels = cut(samples, chosen.to(samples[1].device))
            if isinstance(inputs, Tensor):
                place = (start, len(whole))
                inputs, labels = augment(inputs, augmentation, generator, labels, of=place)
            yield trimmed((self.normalise(inputs), labels))

    def _at(self, device: torch.device) -> tuple[Any, Tensor]:
        if device.type == "cpu":
            return self.x, self.y
        key = str(device)
        if key not in self._on_device:
            self._on_device[key] = (to_device(self.x, device), self.y.to(device))
        return self._on_device[key]


class StreamSplit:
    """A map-style data set read through a DataLoader; used for large images.

    Every sample is read with its own seed, so random transforms give the same result with any
    number of workers.

    Args:
        train_set: Data set of ``(x, y)`` with the training transforms.
        eval_set: The same samples with the evaluation transforms.
        indices: Which samples belong to the split, ``[N]``.
        labels: Labels ``[N]`` of those samples, or None when only reading tells.
        normalise: Applied to every batch.
        workers: Loader processes.
        collate: How samples become a batch, None for torch's default.
        unpack: Tells a batch's inputs from its labels.
    """

    def __init__(
        self,
        train_set: Dataset[Any],
        eval_set: Dataset[Any],
        indices: Tensor,
        labels: Tensor | None,
        normalise: Normalise,
        workers: int = 0,
        collate: Any = None,
        unpack: Callable[[Any], Batch] = unpack_batch,
    ) -> None:
        self.train_set, self.eval_set = train_set, eval_set
        self.indices, self._labels = indices, labels
        self.normalise, self.workers, self.collate = normalise, workers, collate
        self.unpack = unpack

    @property
    def labels(self) -> Tensor | None:
        """Labels ``[N]``, or None when only reading the samples tells."""
        return self._labels

    def __len__(self) -> int:
        return len(self.indices)

    def identity(self) -> Any:
        """What the data sets are (see :func:`dataset_identity`) and which samples are chosen."""
        sets = {"eval": self.eval_set}
        if self.train_set is not self.eval_set:
            sets["train"] = self.train_set
        return {
            **{role: dataset_identity(found, read=_READ) for role, found in sets.items()},
            "indices": self.indices,
            "labels": self._labels,
            "normalise": self.normalise,
            "collate": self.collate,
        }

    def subset(self, indices: Tensor) -> StreamSplit:
        """The samples at ``indices``."""
        return StreamSplit(
            self.train_set,
            self.eval_set,
            self.indices[indices],
            None if self._labels is None else self._labels[indices],
            self.normalise,
            self.workers,
            self.collate,
            self.unpack,
        )

    def batches(
        self,
        order: Tensor,
        batch_size: int,
        *,
        augmentation: str = "none",
        seed: int = 0,
        device: torch.device | str = "cpu",
        share: Share = WHOLE,
    ) -> Iterator[Batch]:
        """Normalised batches on ``device``, read by ``workers`` processes."""
        source = self.eval_set if augmentation == "none" else self.train_set
        chosen = self.indices[order]
        generator = torch.Generator().manual_seed(seed)
        wholes = torch.arange(len(chosen)).split(batch_size)
        parts = [part_of(whole, share) for whole in wholes]
        loader = DataLoader(
            _Seeded(source, chosen, seed),
            batch_sampler=[part.tolist() for part, _ in parts],
            num_workers=min(self.workers, len(parts)),
            collate_fn=self.collate,
            pin_memory=torch.device(device).type == "cuda",
            generator=torch.Generator().manual_seed(seed),
        )
        for batch, whole, (_, start) in zip(loader, wholes, parts, strict=True):
            inputs, labels = self.unpack(batch)
            if labels is None or not tensors_in(inputs):
                raise DataError(
                    f"a batch must be (x, y) of tensors, got {type(batch).__name__} of "
                    f"{type(inputs).__name__} and {type(labels).__name__}; images need a transform "
                    "such as torchvision.transforms.v2.PILToTensor()"
                )
            if isinstance(inputs, Tensor):
                place = (start, len(whole))
                inputs, labels = augment(inputs, augmentation, generator, labels, of=place)
                inputs = inputs.to(device, non_blocking=True)
            else:
                inputs = to_device(inputs, device)
            assert labels is not None
            yield self.normalise(inputs), single(labels).to(device, non_blocking=True)


def part_of(batch: Tensor, share: Share) -> tuple[Tensor, int]:
    """A part of a batch's samples, parts as equal as may be, and the place of its first one."""
    number, count = share
    sizes = [len(part) for part in batch.tensor_split(count)]
    start = sum(sizes[:number])
    return batch[start : start + sizes[number]], start


class _Seeded(Dataset[Any]):
    """Samples ``order`` of a data set, each read under a seed of its own."""

    def __init__(self, source: Dataset[Any], order: Tensor, seed: int) -> None:
        self.source, self.order, self.seed = source, order, seed

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> Any:
        index = int(self.order[position])
        with seeded(self.seed * 1_000_003 + index):
            return self.source[index]


def dataset_identity(dataset: Any, read: int = 0) -> Any:
    """What tells a map-style data set from another without reading all of it.

    Args:
        dataset: The data set. One with a method ``identity()`` speaks for itself.
        read: How many samples, evenly spread, are read and count with their content.

    Returns:
        Ingredients for :func:`rlprune.identity.describe`: its class and length, the names and
        sizes of its files where it lists them as torchvision's folders do, and the samples read.
    """
    if callable(getattr(type(dataset), "identity", None)):
        return dataset
    size = len(dataset)
    found: dict[str, Any] = {"type": type(dataset), "length": size}
    files = getattr(dataset, "samples", None)
    if isinstance(files, list) and files and isinstance(files[0], tuple):
        found["files"] = _listing([str(entry[0]) for entry in files])
    if read:
        positions = sorted({at * size // read for at in range(read)})
        found["samples"] = [_sample(dataset, position) for position in positions]
    return found


def _sample(dataset: Any, position: int) -> Any:
    with seeded(position):
        return dataset[position]


def _listing(files: Sequence[str]) -> str:
    """Digest over the names, below their common folder, and the sizes of files."""
    base = os.path.commonpath(files) if len(files) > 1 else os.path.dirname(files[0])
    sha = hashlib.sha256()
    for file in files:
        size = os.path.getsize(file) if os.path.isfile(file) else -1
        sha.update(f"{os.path.relpath(file, base)}\0{size}\n".encode())
    return sha.hexdigest()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global CPU generators that transforms draw from; restore them afterwards.

    Args:
        seed: Any integer.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def single(tensor: Tensor) -> Tensor:
    """The tensor in float32 where it is float64; torch makes those of Python numbers."""
    return tensor.float() if tensor.dtype == torch.float64 else tensor
