"""What users hand over as a split (tensors, a data set, a loader, a factory), made a ``Split``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from rlprune.batches import LABELS, Batch
from rlprune.batches import unpack as unpack_batch
from rlprune.data.collate import Collate, concatenate
from rlprune.data.splits import (
    Normalise,
    Split,
    StreamSplit,
    TensorSplit,
    dataset_identity,
    single,
)
from rlprune.errors import DataError, RlpruneError
from rlprune.inputs import map_tensors, tensors_in

Source = Any
"""``(x, y)`` tensors or arrays, x one or a nest of them; a mapping of them with ``labels``; a
map-style data set of ``(x, y)``, ``(x, x, y)`` or mappings; a loader (or any iterable) of such
batches; a ``Split``; or a function without arguments that returns one of these."""

Unpack = Callable[[Any], Batch]


@dataclass(frozen=True)
class Deferred:
    """A split that is opened when it is needed, and known before by what is said of it.

    Attributes:
        open: Returns the split.
        ingredients: What tells it from others, see :func:`rlprune.identity.describe`.
    """

    open: Callable[[], Source]
    ingredients: Any

    def __call__(self) -> Source:
        """Open the split."""
        return self.open()

    def identity(self) -> Any:
        """The ingredients."""
        return self.ingredients


_LOADER_LIMIT = 4 * 2**30
_READ = 256


def _opened(source: Callable[[], Source], name: str) -> Source:
    try:
        return source()
    except RlpruneError:
        raise
    except Exception as error:
        raise DataError(
            f"{name}: the function that opens it raised {type(error).__name__}: {error}"
        ) from error


class Reader:
    """Brings splits to one of the two internal forms.

    A map-style data set keeps its own transforms and is read sample by sample; ``TensorDataset``
    and tensors stay in memory. A loader over a map-style data set is read through that data set
    with the loader's collate function and workers; any other iterable of batches is read once and
    kept.

    Args:
        normalise: Normalisation for the splits' batches.
        workers: Loader processes for data sets that come without a loader.
        unpack: Tells a batch's inputs from its labels.
        pad: Number of the padding token.
    """

    def __init__(
        self,
        normalise: Normalise,
        workers: int = 0,
        unpack: Unpack = unpack_batch,
        pad: int = 0,
    ) -> None:
        self.normalise, self.workers, self.unpack, self.pad = normalise, workers, unpack, pad

    def split(self, source: Source, name: str) -> Split:
        """A user's split in an internal form.

        Args:
            source: The user's object.
            name: Which split it is, for messages.

        Raises:
            DataError: The object has none of the accepted forms, is empty, or inputs and labels
                differ in length.
        """
        if isinstance(source, (TensorSplit, StreamSplit)):
            return source
        if isinstance(source, TensorDataset):
            return self._tensors(source.tensors, name)
        if isinstance(source, (Tensor, tuple, Mapping)) or (
            isinstance(source, list) and len(source) == 2
        ):
            return self._tensors(source, name)
        if isinstance(source, DataLoader) and not isinstance(source.dataset, IterableDataset):
            return self._stream(source.dataset, name, source.num_workers, source.collate_fn)
        if isinstance(source, IterableDataset):
            return self._materialise(
                DataLoader(source, batch_size=_READ, collate_fn=Collate(self.pad)), name
            )
        if isinstance(source, DataLoader):
            return self._materialise(source, name)
        if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
            return self._stream(source, name, self.workers, None)
        if hasattr(source, "__iter__"):
            return self._materialise(source, name)
        if isinstance(source, Callable):  # type: ignore[arg-type]
            return self.split(_opened(source, name), name)
        raise DataError(
            f"{name}: got {type(source).__name__}; give an (x, y) pair of tensors, a map-style "
            "data set of (x, y), or a loader of (x, y) batches"
        )

    def _tensors(self, source: Any, name: str) -> TensorSplit:
        try:
            source = _as_tensors(source)
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"{name}: x and y must be tensors or arrays ({error})") from error
        x, y = self.unpack(source)
        sizes = [len(tensor) for tensor in tensors_in(x) if tensor.ndim]
        first = next(iter(tensors_in(x)), None)
        if first is None or not sizes or sizes[0] == 0 or _flat(x):
            shape = None if first is None else tuple(first.shape)
            raise DataError(
                f"{name}: x has shape {shape}; expected [samples, ...], at least one sample"
            )
        if any(size != sizes[0] for size in sizes):
            raise DataError(f"{name}: inputs have {sizes} samples; expected one number for all")
        if y is None or y.dim() < 1 or len(y) != sizes[0]:
            given = "is missing" if y is None else f"has shape {tuple(y.shape)}"
            raise DataError(
                f"{name}: x has {sizes[0]} samples but y {given}; expected {sizes[0]} labels, "
                "[samples] or [samples, ...]"
            )
        x, y = map_tensors(x, single), single(y)
        for tensor in tensors_in(x):
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise DataError(f"{name}: x holds NaN or infinite values")
        self.normalise.check(x)
        return TensorSplit(x, y, self.normalise)

    def _stream(self, dataset: Dataset[Any], name: str, workers: int, collate: Any) -> StreamSplit:
        size = len(dataset)  # type: ignore[arg-type]
        if size == 0:
            raise DataError(f"{name}: the data set {type(dataset).__name__} is empty")
        return StreamSplit(
            dataset,
            dataset,
            torch.arange(size),
            labels_of(dataset),
            self.normalise,
            workers,
            collate if collate is not None else Collate(self.pad),
            self.unpack,
        )

    def _materialise(self, batches: Any, name: str) -> TensorSplit:
        parts: list[Any] = []
        total = 0
        for batch in batches:
            x, y = self.unpack(batch)
            parts.append({"inputs": x, "labels": y})
            total += sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(x))
            if total > _LOADER_LIMIT:
                raise DataError(
                    f"{name}: the loader yields more than {_LOADER_LIMIT >> 30} GiB, too much to "
                    "hold; give a map-style data set instead"
                )
        if not parts:
            raise DataError(f"{name}: the loader yielded no batch")
        whole = concatenate(parts, self.pad)
        return self._tensors((whole["inputs"], whole["labels"]), name)


def unopened(source: Source) -> Any:
    """Ingredients of a split that must not be read yet: nothing of its samples is looked at."""
    dataset = getattr(source, "dataset", source)
    whole = isinstance(source, (Tensor, tuple, list, Mapping, TensorDataset))
    if whole or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        return source
    return dataset_identity(dataset)


def labels_of(dataset: Any) -> Tensor | None:
    """Labels of a data set without reading its samples, or None.

    Args:
        dataset: A data set; ``targets``, ``labels``, ``TensorDataset``, ``Subset`` and the
            ``label`` column of Hugging Face ``datasets`` are known.

    Returns:
        Labels ``[N, ...]``, or None.
    """
    if isinstance(dataset, Subset):
        inner = labels_of(dataset.dataset)
        return None if inner is None else inner[torch.as_tensor(list(dataset.indices))]
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        return dataset.tensors[-1]
    columns = getattr(dataset, "column_names", None) or ()
    found = [getattr(dataset, attribute, None) for attribute in ("targets", "labels")]
    found += [list(dataset[key]) for key in LABELS if key in columns]
    for values in found:
        if values is None or not isinstance(values, Sized) or len(values) != len(dataset):
            continue
        try:
            labels = torch.as_tensor(values)
        except (TypeError, ValueError, RuntimeError):
            continue
        if labels.dim() == 1:
            return labels.float() if labels.is_floating_point() else labels.long()
    return None


def draw(
    size: int,
    count: int,
    labels: Tensor | None,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw ``count`` of ``size`` samples at random, dealt out by class where labels are known.

    Args:
        size: Number of samples.
        count: How many to draw.
        labels: Numbers ``[size]`` to balance; every one gets its share within one sample, in the
            whole draw and in every prefix of it.
        generator: CPU generator.

    Returns:
        Indices drawn, classes mixed, and the indices left, ascending.
    """
    shuffled = torch.randperm(size, generator=generator)
    if labels is not None:
        # Sorting by position within the class deals the classes out evenly.
        by_class = labels[shuffled].argsort(stable=True)
        counts = labels[shuffled].unique(return_counts=True)[1]
        fraction = torch.cat([(torch.arange(int(c)) + 0.5) / int(c) for c in counts])
        key = torch.empty(size, dtype=torch.float64)
        key[by_class] = fraction.double()
        shuffled = shuffled[key.argsort(stable=True)]
    drawn = shuffled[:count]
    left = torch.ones(size, dtype=torch.bool)
    left[drawn] = False
    return drawn, left.nonzero().squeeze(1)


def _as_tensors(source: Any) -> Any:
    """The source with arrays made tensors; ``(x, y)`` and nests of arrays keep their form."""
    if isinstance(source, Mapping):
        return {key: torch.as_tensor(value) for key, value in source.items()}
    if isinstance(source, (tuple, list)):
        nested = (tuple, Mapping)
        parts = [_as_tensors(p) if isinstance(p, nested) else torch.as_tensor(p) for p in source]
        return tuple(parts)
    return torch.as_tensor(source)


def _flat(x: Any) -> bool:
    """Whether samples of a single input tensor have no dimension of their own."""
    return isinstance(x, Tensor) and x.dim() < 2
