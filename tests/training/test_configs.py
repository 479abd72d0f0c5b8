import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rlprune import data as data_module
from rlprune import models
from rlprune.data import named
from rlprune.training import FineTune, Pretrain

CONFIGS = Path(__file__).parents[2] / "configs"


def options_of(path):
    return OmegaConf.to_container(OmegaConf.load(path))


def files(group):
    return [pytest.param(path, id=path.stem) for path in sorted((CONFIGS / group).glob("*.yaml"))]


@pytest.mark.parametrize("path", files("model"))
def test_model_configs(path, tmp_path):
    options = options_of(path)
    assert options.pop("checkpoint") is None
    if options.get("path") == "???":  # a folder of the user's
        from rlprune import hf
        from rlprune.zoo.transformers_tiny import build

        hf.save(build("bert")[0], tmp_path)
        options["path"] = tmp_path
        assert options.pop("trained")
    if options.get("_target_") == "timm.create_model":
        pytest.importorskip("timm")
    if options.get("_target_") == "???":
        options["_target_"] = "rlprune.models.small.MLP"
    if options.get("weights") == "DEFAULT":
        options["weights"] = None
    model = models.create(num_classes=10, **options)
    assert sum(p.numel() for p in model.parameters()) > 0


def test_every_registered_model_has_a_config():
    assert set(models.names()) <= {path.stem for path in (CONFIGS / "model").glob("*.yaml")}


@pytest.mark.parametrize("path", files("data"))
def test_data_configs_name_options_that_exist(path):
    options = options_of(path)
    name = options.pop("name")
    assert name == path.stem
    loader = {"cifar10": named._cifar, "cifar100": named._cifar, "imagenet": named.imagefolder}
    parameters = inspect.signature(loader.get(name, named.LOADERS[name])).parameters
    assert set(options) <= set(parameters)


def test_digits_config_is_the_default():
    options = options_of(CONFIGS / "data" / "digits.yaml")
    assert repr(data_module.load(**options)) == repr(data_module.load("digits"))


@pytest.mark.parametrize("path", files("finetune"))
def test_finetune_configs_set_every_field(path):
    options = options_of(path)
    assert set(options) == set(FineTune.__dataclass_fields__)
    config = FineTune(**options)
    if path.stem == "default":
        assert config == FineTune()
    assert (config.epochs == 0) == (path.stem == "none")


@pytest.mark.parametrize("path", files("pretrain"))
def test_pretrain_configs_set_every_field(path):
    options = options_of(path)
    assert set(options) == set(Pretrain.__dataclass_fields__)
    assert path.stem != "default" or Pretrain(**options) == Pretrain()
