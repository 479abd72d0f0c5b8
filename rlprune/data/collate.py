"""Samples of mappings, tuples and lists of numbers, made into a batch; texts are padded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad as padded
from torch.utils.data import default_collate

from rlprune.batches import LABELS
from rlprune.errors import DataError

IGNORED = -100
"""What labels of padding are filled with: no loss counts them."""

MASK = "attention_mask"


class Collate:
    """Make samples a batch, as they come from Hugging Face ``datasets`` or anywhere else.

    Columns of a mapping that hold no numbers (the text itself, identifiers) are left out. Lists of
    different lengths are padded at the end: the attention mask with 0, labels with -100, everything
    else with ``pad``.

    Args:
        pad: Number of the padding token.
    """

    def __init__(self, pad: int = 0) -> None:
        self.pad = pad

    def identity(self) -> Any:
        """The padding token."""
        return {"pad": self.pad}

    def __call__(self, samples: Sequence[Any]) -> Any:
        """A batch of the samples' form.

        Raises:
            DataError: Texts of different lengths come without an attention mask.
        """
        first = samples[0]
        if isinstance(first, Mapping):
            return self._mapping(samples)
        if isinstance(first, (tuple, list)) and any(isinstance(part, Mapping) for part in first):
            return tuple(self(part) for part in zip(*samples, strict=True))
        return default_collate(list(samples))

    def _mapping(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        columns: dict[str, Tensor] = {}
        uneven = []
        for key in samples[0]:
            values = [_numbers(sample[key]) for sample in samples]
            tensors = [value for value in values if value is not None]
            if len(tensors) < len(samples):
                continue
            if len({tensor.shape for tensor in tensors}) > 1:
                uneven.append(key)
            columns[key] = stack(tensors, fill(key, self.pad))
        if uneven and MASK not in columns:
            raise DataError(
                f"samples have {', '.join(uneven)} of different lengths and no attention_mask that "
                "would tell padding apart; add one (a tokenizer makes it), or give a DataLoader "
                "with a collate_fn of yours"
            )
        if not columns:
            raise DataError(
                f"samples have no column of numbers, only {', '.join(samples[0])}; tokenise them "
                "first"
            )
        return columns


def fill(key: str, pad: int) -> int:
    """What an argument of a network is padded with, by its name."""
    if key in LABELS:
        return IGNORED
    return 0 if "mask" in key else pad


def stack(tensors: Sequence[Tensor], value: int) -> Tensor:
    """Samples of one column as a tensor, those that are shorter padded at the end."""
    longest = max((len(tensor) for tensor in tensors if tensor.ndim), default=0)
    return torch.stack([_to_length(tensor, 0, longest, value) for tensor in tensors])


def concatenate(parts: Sequence[Any], pad: int = 0, key: str = "") -> Any:
    """Batches of one form as a single one; those with shorter texts are padded at the end.

    Args:
        parts: Tensors, or nests of them, samples along the first dimension.
        pad: Number of the padding token.
        key: Which argument the parts are.
    """
    first = parts[0]
    if isinstance(first, Mapping):
        return {name: concatenate([part[name] for part in parts], pad, name) for name in first}
    if isinstance(first, (tuple, list)):
        return type(first)(concatenate(list(same), pad, key) for same in zip(*parts, strict=True))
    if not isinstance(first, Tensor):
        return first
    if first.ndim == 0:
        return first
    longest = max((part.shape[1] for part in parts if part.ndim > 1), default=0)
    return torch.cat([_to_length(part, 1, longest, fill(key, pad)) for part in parts])


def _to_length(tensor: Tensor, dim: int, length: int, value: int) -> Tensor:
    if tensor.ndim <= dim or tensor.shape[dim] == length:
        return tensor
    amounts = [0, 0] * (tensor.ndim - 1 - dim) + [0, length - tensor.shape[dim]]
    return padded(tensor, amounts, value=value)


def _numbers(value: Any) -> Tensor | None:
    """A tensor of a column's value; None where it holds anything but numbers."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (bool, int, float, np.ndarray, np.generic, list, tuple)):
        try:
            found = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            return None
        return found.float() if found.dtype == torch.float64 else found
    return None
