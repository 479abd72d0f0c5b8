"""AlexNet for 32 x 32 images (Krizhevsky, Sutskever, Hinton 2012)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlprune.models.registry import register


class AlexNet(nn.Module):
    """Five convolutions and three linear layers with ReLU, without normalisation.

    The widths are torchvision's; kernels are 3 x 3 and the hidden linear layers narrower, to suit
    the images.

    Args:
        num_classes: Number of outputs.
        in_channels: Channels of the input images.
        hidden: Neurons of the two hidden linear layers.
        dropout: Probability of dropping a feature before each of them.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        hidden: int = 1024,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 192, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(256 * 2 * 2, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Classify images ``[N, in_channels, 32, 32]``; returns logits ``[N, num_classes]``."""
        return self.classifier(torch.flatten(self.features(x), 1))


register("alexnet")(AlexNet)
