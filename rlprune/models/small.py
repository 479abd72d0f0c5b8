"""Small networks that train in seconds: a convolutional net for digits and a perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from rlprune.models.registry import register


class ConvBlock(nn.Sequential):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around an identity shortcut.

    Args:
        channels: Input and output channels.
        hidden: Channels between the two convolutions.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, hidden, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, channels, H, W]`` to the same shape."""
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(x + self.bn2(self.conv2(out)))


class DigitsCNN(nn.Module):
    """Stem, residual block, strided convolution, residual block, global average, linear.

    Args:
        num_classes: Number of outputs.
        in_channels: Channels of the input images.
        width: Channels of the first half; the second half has twice as many.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, width: int = 24) -> None:
        super().__init__()
        self.stem = ConvBlock(in_channels, width)
        self.block1 = ResidualBlock(width, width)
        self.down = ConvBlock(width, 2 * width, stride=2)
        self.block2 = ResidualBlock(2 * width, 2 * width)
        self.head = ConvBlock(2 * width, 2 * width)
        self.fc = nn.Linear(2 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images ``[N, in_channels, 8, 8]``; returns logits ``[N, num_classes]``."""
        x = self.block1(self.stem(x))
        x = self.head(self.block2(self.down(x)))
        return self.fc(x.mean(dim=(2, 3)))


class MLP(nn.Module):
    """Linear layers with ReLU between them on the flattened input.

    Args:
        num_classes: Number of outputs.
        in_features: Numbers per sample after flattening: 64 for digits, 784 for 28 x 28 images.
        hidden: Neurons per hidden layer; the default is LeNet-300-100 (LeCun et al. 1998).
    """

    def __init__(
        self, num_classes: int = 10, in_features: int = 64, hidden: Sequence[int] = (300, 100)
    ) -> None:
        super().__init__()
        widths = [in_features, *hidden]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        layers.append(nn.Linear(widths[-1], num_classes))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Classify ``[N, ...]`` with ``in_features`` numbers each; returns ``[N, num_classes]``."""
        return self.layers(torch.flatten(x, 1))


register("digits_cnn")(DigitsCNN)
register("mlp")(MLP)
