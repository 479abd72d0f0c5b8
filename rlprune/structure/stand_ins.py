"""Modules without parameters that take the place of what a dropped branch ran."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Zeros(nn.Module):
    """Returns zeros of its first tensor argument's shape, type and layout.

    Attributes:
        nones: how many Nones follow the tensor where the replaced module returned a tuple; -1
            where it returned a tensor.
    """

    def __init__(self, nones: int = -1) -> None:
        super().__init__()
        self.nones = nones

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Zeros like the first tensor among the arguments."""
        zeros = torch.zeros_like(_first(args, kwargs))
        return zeros if self.nones < 0 else (zeros, *[None] * self.nones)


class Skip(nn.Module):
    """Returns its first tensor argument."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The first tensor among the arguments, itself."""
        return _first(args, kwargs)


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            return value
    raise TypeError("a dropped branch was called without a tensor")
