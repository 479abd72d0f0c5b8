"""Activations as rows: one per position that counts, padding left out."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from rlprune.errors import DataError
from rlprune.observe.recorder import Observation

logger = logging.getLogger(__name__)

_CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
)


def channel_axis(module: nn.Module | None) -> int:
    """The dimension of a module's inputs and outputs that holds its units: 1 or the last."""
    return 1 if isinstance(module, _CHANNELS_FIRST) else -1


def rows(seen: Observation, axis: int | None = None) -> Tensor:
    """The positions of a value that are not masked.

    Args:
        seen: What a sink was given; its mask covers the leading dimensions of the value, or the
            rows of one in which samples and positions are flattened.
        axis: Dimension of the units; None decides by the module.

    Returns:
        ``[rows, width]``: samples in order, positions in order within them.

    Raises:
        DataError: The mask does not fit the value.
    """
    value, mask = units_last(seen, axis), position_mask(seen, axis)
    return value.flatten(0, -2) if mask is None else value[mask]


def by_unit(seen: Observation, axis: int | None = None) -> Tensor:
    """The same as `rows`, turned: ``[width, rows]``.

    Raises:
        DataError: The mask does not fit the value.
    """
    turned, mask = units_last(seen, axis).movedim(-1, 0), position_mask(seen, axis)
    return turned.flatten(1) if mask is None else turned[:, mask]


def units_last(seen: Observation, axis: int | None = None) -> Tensor:
    """The value with its units in the last dimension, at least ``[1, width]``."""
    value = seen.value
    if value.ndim < 2:
        return value.reshape(1, -1)
    return value.movedim(channel_axis(seen.module) if axis is None else axis, -1)


def position_mask(seen: Observation, axis: int | None = None) -> Tensor | None:
    """The mask in the shape of the value without its units; None where all positions count.

    Raises:
        DataError: The mask does not fit the value.
    """
    if seen.mask is None:
        return None
    shape, mask = units_last(seen, axis).shape[:-1], seen.mask.to(seen.value.device)
    if shape[: mask.ndim] == mask.shape:
        return mask.reshape(*mask.shape, *(1 for _ in shape[mask.ndim :])).expand(shape)
    if len(shape) == 1 and shape[0] == mask.numel():
        return mask.reshape(-1)
    if shape == mask.shape[:1]:
        return None
    raise DataError(
        f"the mask {tuple(mask.shape)} does not fit the value {tuple(seen.value.shape)} at "
        f"'{seen.site}'; give stream(..., mask=...) a function that makes one that does"
    )


def fitting_mask(seen: Observation, axis: int | None = None) -> Tensor | None:
    """`position_mask` where it fits; None where all positions count or it cannot be told."""
    try:
        return position_mask(seen, axis)
    except DataError as error:
        logger.debug("padding is not told apart: %s", error)
        return None


def places(seen: Observation, axis: int | None = None) -> Tensor:
    """Sample and position of every row of `rows`, ``[rows, 2]`` int64 on the CPU.

    Samples are counted over all batches; positions of images run along their rows of pixels.
    """
    shape, mask = units_last(seen, axis).shape[:-1], position_mask(seen, axis)
    kept = torch.ones(shape, dtype=torch.bool) if mask is None else mask.cpu()
    if seen.mask is not None and kept.ndim == 1 and len(kept) == seen.mask.numel():
        kept = kept.reshape(seen.mask.shape)
    found = kept.reshape(len(kept), -1).nonzero()
    found[:, 0] += seen.start
    return found
