"""ResNet-18 with a CIFAR stem: a 3 x 3 convolution of stride 1, no max-pool."""

from __future__ import annotations

from torch import nn

from rlprune.models.registry import register


@register("resnet18")
def resnet18(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Build torchvision's ResNet-18 for 32 x 32 images.

    Keys are torchvision's (``conv1, bn1, layer{1..4}.{0,1}, fc``); ``torchvision/resnet18`` is the
    one for large images.

    Args:
        num_classes: Number of outputs.
        in_channels: Channels of the input images.

    Returns:
        The network, in train mode, freshly initialised.
    """
    from torchvision.models import resnet18 as build

    model = build(weights=None, num_classes=num_classes)
    model.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model
