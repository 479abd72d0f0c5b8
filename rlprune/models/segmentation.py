"""A small U-Net."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlprune.models.registry import register
from rlprune.models.small import ConvBlock


class UNet(nn.Module):
    """Two convolutions per level, down by strides and up by interpolation, levels concatenated.

    After Ronneberger et al. 2015, with batch norm and padded convolutions.

    Args:
        num_classes: Number of outputs per pixel.
        in_channels: Channels of the input images.
        width: Channels of the first level; every further one has twice as many.
        levels: How often the resolution is halved; height and width are multiples of 2^levels.
    """

    def __init__(
        self, num_classes: int = 2, in_channels: int = 3, width: int = 16, levels: int = 2
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels + 1)]
        self.stem = _pair(in_channels, width)
        self.down = nn.ModuleList(
            nn.Sequential(ConvBlock(fine, coarse, stride=2), ConvBlock(coarse, coarse))
            for fine, coarse in pairwise(widths)
        )
        self.up = nn.ModuleList(
            _pair(coarse + fine, fine) for fine, coarse in reversed(list(pairwise(widths)))
        )
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Classify every pixel of ``[N, in_channels, H, W]``; logits ``[N, num_classes, H, W]``."""
        seen = [self.stem(x)]
        for level in self.down:
            seen.append(level(seen[-1]))
        out = seen.pop()
        for level, fine in zip(self.up, reversed(seen), strict=True):
            out = functional.interpolate(out, scale_factor=2.0, mode="nearest")
            out = level(torch.cat([out, fine], dim=1))
        return self.head(out)


def _pair(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        ConvBlock(in_channels, out_channels), ConvBlock(out_channels, out_channels)
    )


register("unet")(UNet)
