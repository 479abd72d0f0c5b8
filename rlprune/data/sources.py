"""What users hand over as a split (tensors, a data set, a loader, a factory), made a ``Split``."""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from rlprune.data.splits import (
    Normalise,
    Split,
    StreamSplit,
    TensorSplit,
    as_batch,
    dataset_identity,
)
from rlprune.errors import DataError

Source = Any
"""``(x, y)`` tensors or arrays, a map-style data set of ``(x, y)``, a loader (or any iterable) of
such batches, a ``Split``, or a function without arguments that returns one of these."""


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


def to_split(source: Source, name: str, normalise: Normalise, workers: int = 0) -> Split:
    """Bring a user's split to one of the two internal forms.

    A map-style data set keeps its own transforms and is read sample by sample; ``TensorDataset``
    and pairs stay in memory. A loader over a map-style data set is read through that data set with
    the loader's collate function and workers; any other iterable of batches is read once and kept.

    Args:
        source: The user's object.
        name: Which split it is, for messages.
        normalise: Normalisation for the split's batches.
        workers: Loader processes for data sets that come without a loader.

    Returns:
        The split.

    Raises:
        DataError: The object has none of the accepted forms, is empty, or x and y differ in length.
    """
    if isinstance(source, (TensorSplit, StreamSplit)):
        return source
    if isinstance(source, (tuple, list)) and len(source) == 2:
        return _tensors(source[0], source[1], name, normalise)
    if isinstance(source, TensorDataset) and len(source.tensors) == 2:
        return _tensors(source.tensors[0], source.tensors[1], name, normalise)
    if isinstance(source, DataLoader) and not isinstance(source.dataset, IterableDataset):
        return _stream(source.dataset, name, normalise, source.num_workers, source.collate_fn)
    if isinstance(source, IterableDataset):
        return _materialise(DataLoader(source, batch_size=_READ), name, normalise)
    if isinstance(source, DataLoader):
        return _materialise(source, name, normalise)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return _stream(source, name, normalise, workers, None)
    if hasattr(source, "__iter__"):
        return _materialise(source, name, normalise)
    if isinstance(source, Callable):  # type: ignore[arg-type]
        return to_split(source(), name, normalise, workers)
    raise DataError(
        f"{name}: got {type(source).__name__}; give an (x, y) pair of tensors, a map-style data "
        "set of (x, y), or a loader of (x, y) batches"
    )


def unopened(source: Source) -> Any:
    """Ingredients of a split that must not be read yet: nothing of its samples is looked at."""
    dataset = getattr(source, "dataset", source)
    whole = isinstance(source, (tuple, list, TensorDataset))
    if whole or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        return source
    return dataset_identity(dataset)


def labels_of(dataset: Any) -> Tensor | None:
    """Labels of a data set without reading its samples, or None.

    Args:
        dataset: A data set; ``targets``, ``labels``, ``TensorDataset`` and ``Subset`` are known.

    Returns:
        Integer labels ``[N]``, or None.
    """
    if isinstance(dataset, Subset):
        inner = labels_of(dataset.dataset)
        return None if inner is None else inner[torch.as_tensor(list(dataset.indices))]
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        return dataset.tensors[1]
    for attribute in ("targets", "labels"):
        values = getattr(dataset, attribute, None)
        if values is None or not isinstance(values, Sized) or len(values) != len(dataset):
            continue
        labels = torch.as_tensor(values)
        if labels.dim() == 1 and not labels.is_floating_point():
            return labels.long()
    return None


def _tensors(x: Any, y: Any, name: str, normalise: Normalise) -> TensorSplit:
    try:
        x, y = torch.as_tensor(x), torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name}: x and y must be tensors or arrays ({error})") from error
    if x.dim() < 2 or len(x) == 0:
        raise DataError(
            f"{name}: x has shape {tuple(x.shape)}; expected [samples, ...], at least one sample"
        )
    if y.dim() != 1 or len(y) != len(x):
        raise DataError(
            f"{name}: x has {len(x)} samples but y has shape {tuple(y.shape)}; expected "
            f"[{len(x)}] class numbers"
        )
    if x.dtype == torch.float64:
        x = x.float()
    if x.is_floating_point() and not bool(x.isfinite().all()):
        raise DataError(f"{name}: x holds NaN or infinite values")
    normalise.check(x.shape[1:])
    return TensorSplit(x, y, normalise)


def _stream(
    dataset: Dataset[Any], name: str, normalise: Normalise, workers: int, collate: Any
) -> StreamSplit:
    size = len(dataset)  # type: ignore[arg-type]
    if size == 0:
        raise DataError(f"{name}: the data set {type(dataset).__name__} is empty")
    indices = torch.arange(size)
    return StreamSplit(dataset, dataset, indices, labels_of(dataset), normalise, workers, collate)


def _materialise(batches: Any, name: str, normalise: Normalise) -> TensorSplit:
    xs: list[Tensor] = []
    ys: list[Tensor] = []
    total = 0
    for batch in batches:
        x, y = as_batch(batch)
        xs.append(x)
        ys.append(y)
        total += x.numel() * x.element_size()
        if total > _LOADER_LIMIT:
            raise DataError(
                f"{name}: the loader yields more than {_LOADER_LIMIT >> 30} GiB, too much to hold; "
                "give a map-style data set instead"
            )
    if not xs:
        raise DataError(f"{name}: the loader yielded no batch")
    return _tensors(torch.cat(xs), torch.cat(ys), name, normalise)


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
        labels: Labels ``[size]``; with them every class gets its share within one sample, in the
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
