"""Random crop and horizontal flip for a whole batch at once, from an explicit generator."""

from __future__ import annotations

import torch
from torch import Tensor

from rlprune.errors import ConfigError

AUGMENTATIONS = ("none", "crop", "crop_flip", "imagenet")
"""``none``; ``crop``: pad and crop; ``crop_flip``: and mirror; ``imagenet``: RandomResizedCrop and
mirror on the original images, which are then streamed instead of held in memory."""

BATCHED = ("crop", "crop_flip")
"""Those that ``augment`` applies to a batch of tensors."""


def check_augmentation(name: str) -> str:
    """Return ``name`` if it is an augmentation.

    Raises:
        ConfigError: It is not.
    """
    if name not in AUGMENTATIONS:
        raise ConfigError(
            f"augmentation {name!r} is unknown; choose one of {', '.join(AUGMENTATIONS)}"
        )
    return name


def padding_for(size: int) -> int:
    """Padding of the random crop: an eighth of the image, 4 for 32 x 32 (He et al. 2015)."""
    return max(1, size // 8)


def augment(
    images: Tensor,
    augmentation: str,
    generator: torch.Generator,
    maps: Tensor | None = None,
    *,
    of: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Crop (and mirror) every image of a batch at random, and its label map likewise.

    A crop from the reflect-padded image is one gather with reflected indices, so nothing is
    padded in memory.

    Args:
        images: ``[N, C, H, W]``, any type.
        augmentation: ``crop`` or ``crop_flip``; anything else returns both as they are.
        generator: CPU generator; three draws per image decide everything.
        maps: Labels; those of the images' height and width ``[N, H, W]`` move with them.
        of: Where these images are a part of a batch: the place of the first one, and the size of
            the batch. They are then moved as they would be among the others.

    Returns:
        Tensors of the same shape and type, on the same device.
    """
    if augmentation not in BATCHED:
        return images, maps
    n, channels, height, width = images.shape
    pad_y, pad_x = padding_for(height), padding_for(width)
    start, whole = (0, n) if of is None else of
    own = slice(start, start + n)
    down = torch.randint(-pad_y, pad_y + 1, (whole, 1), generator=generator)[own]
    right = torch.randint(-pad_x, pad_x + 1, (whole, 1), generator=generator)[own]
    rows = _reflect(torch.arange(height) + down, height)
    columns = _reflect(torch.arange(width) + right, width)
    if augmentation == "crop_flip":
        mirrored = torch.rand((whole, 1), generator=generator)[own] < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    positions = (rows[:, :, None] * width + columns[:, None, :]).view(n, 1, height * width)
    positions = positions.to(images.device, non_blocking=True)
    if maps is not None and maps.shape == (n, height, width):
        maps = maps.reshape(n, -1).gather(1, positions[:, 0]).view(maps.shape)
    moved = images.reshape(n, channels, -1).gather(2, positions.expand(n, channels, -1))
    return moved.view(images.shape), maps


def _reflect(index: Tensor, size: int) -> Tensor:
    last = size - 1
    return last - (last - index.abs()).abs()
