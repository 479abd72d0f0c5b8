"""CIFAR ResNets of depth 6n + 2 with option-A shortcuts (He et al. 2015, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rlprune.models.registry import register

DEPTHS = (20, 32, 44, 56, 110)


class ZeroPadShortcut(nn.Module):
    """Option A: subsample by two and add zero channels before and after.

    Equal to ``F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, after))``. The zeros are buffers, one
    per channel, so that pruning slices them like any other tensor; they are not saved.

    Args:
        before: Zero channels in front.
        after: Zero channels behind.
    """

    before: Tensor
    after: Tensor

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.register_buffer("before", torch.zeros(1, before, 1, 1), persistent=False)
        self.register_buffer("after", torch.zeros(1, after, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, before + C + after, ceil(H / 2), ceil(W / 2)]``."""
        x = x[:, :, ::2, ::2]
        n, _, height, width = x.shape
        before = self.before.to(x.dtype).expand(n, -1, height, width)
        after = self.after.to(x.dtype).expand(n, -1, height, width)
        return torch.cat([before, x, after], dim=1)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut without parameters.

    Args:
        in_planes: Input channels.
        planes: Output channels.
        stride: 1, or 2 at the first block of a stage.
    """

    def __init__(self, in_planes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_planes != planes:
            missing = planes - in_planes
            self.shortcut = ZeroPadShortcut(missing // 2, missing - missing // 2)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in_planes, H, W]`` to ``[N, planes, H / stride, W / stride]``."""
        out = torch.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return torch.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """Three stages of ``blocks`` basic blocks with 16, 32 and 64 channels.

    Args:
        blocks: Blocks per stage; the depth is ``6 * blocks + 2``.
        num_classes: Number of outputs.
        in_channels: Channels of the input images.
    """

    def __init__(self, blocks: int, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, stride=1)
        self.layer2 = self._stage(16, 32, blocks, stride=2)
        self.layer3 = self._stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(in_planes: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(in_planes, planes, stride)
        return nn.Sequential(first, *(BasicBlock(planes, planes) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Classify images ``[N, C, 32, 32]``; returns logits ``[N, num_classes]``."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


def _builder(depth: int) -> Callable[..., CifarResNet]:
    def build(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
        return CifarResNet((depth - 2) // 6, num_classes, in_channels)

    return build


for _depth in DEPTHS:
    register(f"resnet{_depth}")(_builder(_depth))
