"""How images were prepared for published weights: size, crop, interpolation, mean and std."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlprune.errors import ConfigError


@dataclass(frozen=True)
class Preprocessing:
    """What a network with published weights was evaluated on.

    Attributes:
        size: Height and width of the inputs.
        resize: Shorter side before the centre crop.
        mean: Per-channel mean, after scaling to [0, 1].
        std: Per-channel standard deviation, after scaling to [0, 1].
        interpolation: ``bilinear``, ``bicubic``, ...
    """

    size: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str


def preprocessing_of(name: str) -> Preprocessing:
    """The preprocessing of published weights; nothing is downloaded.

    Args:
        name: ``torchvision/resnet50``, ``torchvision/resnet50:IMAGENET1K_V1``, or ``timm/`` and a
            name of timm's. Without a weight set the default one.

    Raises:
        ConfigError: The name is none of these, or timm is not installed.

    Example:
        >>> preprocessing_of("torchvision/resnet50").resize
        232
    """
    library, _, model = name.partition("/")
    if library == "torchvision" and model:
        return _torchvision(*model.partition(":")[::2])
    if library == "timm" and model:
        return _timm(model)
    raise ConfigError(f"preprocessing={name!r}: write torchvision/<model> or timm/<model>")


def _torchvision(model: str, weights: str) -> Preprocessing:
    from torchvision import models

    try:
        sets = models.get_model_weights(model)
        chosen = sets[weights] if weights else sets.DEFAULT
        found = chosen.transforms()
        return Preprocessing(
            size=found.crop_size[0],
            resize=found.resize_size[0],
            mean=tuple(found.mean),
            std=tuple(found.std),
            interpolation=found.interpolation.value,
        )
    except (ValueError, KeyError, AttributeError) as error:
        told = f"{model}:{weights}" if weights else model
        raise ConfigError(
            f"preprocessing: torchvision has no weights for images under {told!r} ({error})"
        ) from error


def _timm(model: str) -> Preprocessing:
    try:
        from timm.data.config import resolve_data_config
        from timm.models import get_pretrained_cfg, is_model
    except ImportError as error:
        raise ConfigError(f"preprocessing=timm/{model} needs timm: pip install timm") from error
    if not is_model(model.partition(".")[0]):
        raise ConfigError(f"preprocessing: timm has no model {model!r}")
    config = get_pretrained_cfg(model)
    found = resolve_data_config(pretrained_cfg=config.to_dict() if config is not None else {})
    size = found["input_size"][-1]
    return Preprocessing(
        size=size,
        resize=math.floor(size / found["crop_pct"]),
        mean=tuple(found["mean"]),
        std=tuple(found["std"]),
        interpolation=found["interpolation"],
    )
