"""VGG with batch normalisation and a CIFAR head (Simonyan and Zisserman 2014)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rlprune.models.registry import register

POOL = 0
"""Marks a 2 x 2 max-pool in a layer list."""

LAYERS: dict[str, tuple[int, ...]] = {
    "vgg11": (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    "vgg13": (64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    "vgg16": (64, 64, 0, 128, 128, 0) + (256,) * 3 + (0,) + ((512,) * 3 + (0,)) * 2,
    "vgg19": (64, 64, 0, 128, 128, 0) + (256,) * 4 + (0,) + ((512,) * 4 + (0,)) * 2,
}


class VGG(nn.Module):
    """``features`` numbered as torchvision's ``vgg*_bn``, then one linear ``classifier``.

    Args:
        layers: Output channels per convolution, ``POOL`` for a max-pool.
        num_classes: Number of outputs.
        in_channels: Channels of the input images.
        dropout: Probability of dropping a feature before the classifier.
    """

    def __init__(
        self,
        layers: Sequence[int],
        num_classes: int = 10,
        in_channels: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        width = in_channels
        for channels in layers:
            if channels == POOL:
                modules.append(nn.MaxPool2d(2, 2))
                continue
            modules += [
                nn.Conv2d(width, channels, 3, padding=1),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
            width = channels
        self.features = nn.Sequential(*modules)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.classifier.weight, 0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images ``[N, C, 32, 32]``; returns logits ``[N, num_classes]``."""
        return self.classifier(self.dropout(torch.flatten(self.features(x), 1)))


def _builder(name: str) -> Callable[..., VGG]:
    def build(num_classes: int = 10, in_channels: int = 3, dropout: float = 0.0) -> VGG:
        return VGG(LAYERS[name], num_classes, in_channels, dropout)

    return build


for _name in LAYERS:
    register(_name)(_builder(_name))
