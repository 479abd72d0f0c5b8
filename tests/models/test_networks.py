import pytest
import torch
from torch.nn import functional

from rlprune import models
from rlprune.models.resnet_cifar import ZeroPadShortcut


def test_zero_pad_shortcut_equals_option_a():
    x = torch.randn(3, 16, 9, 9)
    expected = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))
    assert torch.equal(ZeroPadShortcut(8, 8)(x), expected)


def test_zero_pad_shortcut_channels_can_be_sliced():
    shortcut = ZeroPadShortcut(8, 8)
    shortcut.before = shortcut.before[:, :3]
    assert shortcut(torch.randn(2, 5, 8, 8)).shape == (2, 16, 4, 4)


def test_shortcut_zeros_are_not_saved():
    assert not any("shortcut" in key for key in models.create("resnet20").state_dict())


@pytest.mark.parametrize("depth", [20, 56])
def test_resnet_depth(depth):
    model = models.create(f"resnet{depth}")
    convolutions = sum(isinstance(m, torch.nn.Conv2d) for m in model.modules())
    assert convolutions + 1 == depth


def test_resnet56_has_the_published_size():
    parameters = sum(p.numel() for p in models.create("resnet56").parameters())
    assert parameters == 853_018


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16", "vgg19"])
def test_vgg_features_are_numbered_as_torchvision_does(name):
    from torchvision import models as tv

    with torch.device("meta"):
        reference = getattr(tv, f"{name}_bn")().features.state_dict()
        ours = models.create(name).features.state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in reference.items()}


def test_resnet18_has_torchvision_keys_and_keeps_the_resolution():
    from torchvision.models import resnet18

    model = models.create("resnet18")
    assert set(model.state_dict()) == set(resnet18().state_dict())
    assert model.conv1.weight.shape == (64, 3, 3, 3)
    with torch.inference_mode():
        stem = model.maxpool(model.relu(model.bn1(model.conv1(torch.randn(1, 3, 32, 32)))))
    assert stem.shape == (1, 64, 32, 32)
