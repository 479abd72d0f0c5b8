import pytest
import torch
from torch import nn

from rlprune import models
from rlprune.errors import ConfigError


def make_net(num_classes: int, width: int = 4) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, num_classes)
    )


def not_a_network() -> int:
    return 3


TOKENS = {"text_transformer": (2, 7), "causal_transformer": (2, 9, 256)}
ANSWERS = {"unet": (2, 7, 32, 32)}


@pytest.mark.parametrize("name", models.names())
def test_every_registered_network_answers(name):
    model = models.create(name, num_classes=7, seed=0).eval()
    shape = (2, 1, 8, 8) if name in ("digits_cnn", "mlp") else (2, 3, 32, 32)
    inputs = torch.randint(0, 7, (2, 9)) if name in TOKENS else torch.randn(shape)
    with torch.inference_mode():
        answer = model(inputs)
    assert answer.shape == {**TOKENS, **ANSWERS}.get(name, (2, 7))


def test_seed_decides_the_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = models.create("digits_cnn", seed=1).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    again = models.create("digits_cnn", seed=1).state_dict()
    other = models.create("digits_cnn", seed=2).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_a_dotted_path_gets_num_classes_and_options():
    path = f"{__name__}.make_net"
    for spelling in ({"name": path}, {"_target_": path}):
        model = models.create(**spelling, num_classes=5, width=6)
        assert model[3].weight.shape == (5, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet65"}, "did you mean resnet56"),
        ({"name": "torchvision/resnet51"}, "torchvision/resnet50"),
        ({"name": "resnet50"}, "torchvision/resnet50"),
        ({"name": "torch.nn.Linea"}, "Linea"),
        ({"name": "no_such_package.net"}, "no_such_package"),
        ({"name": f"{__name__}.not_a_network"}, "expected a torch.nn.Module"),
        ({"name": "resnet20", "depth": 3}, "depth"),
        ({"name": "resnet20", "weights": "DEFAULT"}, "only torchvision"),
        ({"name": "torchvision/resnet18", "weights": "V9"}, "IMAGENET1K_V1"),
        ({}, "exactly one"),
    ],
)
def test_what_cannot_be_built_is_said(options, message):
    with pytest.raises(ConfigError, match=message):
        models.create(**options)


def test_torchvision_weights_with_another_head(tmp_path, monkeypatch):
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    stored = squeezenet1_1().state_dict()
    file = tmp_path / "hub" / "checkpoints" / SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(stored, file)
    model = models.create("torchvision/squeezenet1_1", weights="DEFAULT", num_classes=10)
    assert torch.equal(model.state_dict()["features.0.weight"], stored["features.0.weight"])
    with torch.inference_mode():
        assert model.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 10)


def test_torchvision_auxiliary_heads_are_left_out():
    model = models.create("torchvision/googlenet", num_classes=10)
    with torch.inference_mode():
        assert model.train()(torch.randn(2, 3, 64, 64)).shape == (2, 10)
