"""Any torchvision model by name, with its pretrained weights."""

from __future__ import annotations

import difflib
import logging
from typing import Any
from urllib.error import URLError

from torch import nn

from rlprune.errors import ConfigError

log = logging.getLogger(__name__)

_AUXILIARY_HEADS = ("googlenet", "inception_v3")


def create_torchvision(
    name: str, num_classes: int | None, weights: str | None, kwargs: dict[str, Any]
) -> nn.Module:
    """Build a torchvision model.

    Auxiliary classifiers of googlenet and inception_v3 are left out unless ``aux_logits=True`` is
    given: they serve training from scratch only and make the output a tuple.

    Args:
        name: torchvision's name, such as ``resnet50``.
        num_classes: Number of outputs; None keeps torchvision's default.
        weights: ``"DEFAULT"``, a weight set's name such as ``IMAGENET1K_V1``, or None.
        kwargs: Further arguments of torchvision's builder.

    Returns:
        The network; with weights and another ``num_classes`` its classifier is new.

    Raises:
        ConfigError: Unknown name or weight set, a download that fails, refused arguments.
    """
    from torchvision import models as tv

    if name not in tv.list_models():
        near = difflib.get_close_matches(name, tv.list_models(), n=3)
        hint = f"did you mean {', '.join('torchvision/' + n for n in near)}? " if near else ""
        raise ConfigError(
            f"unknown model 'torchvision/{name}'; {hint}torchvision.models.list_models() shows all"
        )
    arguments = dict(kwargs)
    chosen = _weight_set(name, weights)
    if name in _AUXILIARY_HEADS and chosen is None:
        arguments.setdefault("aux_logits", False)
        arguments.setdefault("init_weights", True)
    pretrained_classes = len(chosen.meta["categories"]) if chosen is not None else None
    if pretrained_classes is None and num_classes is not None:
        arguments["num_classes"] = num_classes
    try:
        model: nn.Module = tv.get_model(name, weights=chosen, **arguments)
    except (URLError, OSError, RuntimeError) as error:
        if chosen is None:
            raise
        raise ConfigError(_download_help(name, chosen.url, error)) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"torchvision/{name} refuses {arguments}: {error}") from error
    if chosen is not None and name in _AUXILIARY_HEADS and not arguments.get("aux_logits", False):
        _drop_auxiliary(model)
    if pretrained_classes is not None and num_classes not in (None, pretrained_classes):
        _replace_head(model, name, pretrained_classes, int(num_classes or 0))
    return model


def near_torchvision(name: str) -> list[str]:
    """Torchvision names close to ``name``; empty when torchvision is not importable."""
    try:
        from torchvision import models as tv
    except ImportError:
        return []
    return difflib.get_close_matches(name, tv.list_models(), n=3)


def _weight_set(name: str, weights: str | None) -> Any:
    if weights is None:
        return None
    from torchvision import models as tv

    choices = tv.get_model_weights(name)
    key = weights.rpartition(".")[2]
    if key == "DEFAULT":
        return choices.DEFAULT
    if key not in choices.__members__:
        valid = ", ".join(["DEFAULT", *choices.__members__])
        raise ConfigError(f"torchvision/{name} has no weights {weights!r}; it has {valid}")
    return choices[key]


def _download_help(name: str, url: str, error: Exception) -> str:
    import torch

    folder = f"{torch.hub.get_dir()}/checkpoints"
    return (
        f"torchvision/{name}: its pretrained weights could not be loaded ({error}). Without a "
        f"network connection, download {url} elsewhere and place it in {folder}, or use "
        "weights=null with checkpoint=<file>"
    )


def _drop_auxiliary(model: nn.Module) -> None:
    for attribute in ("aux1", "aux2", "AuxLogits"):
        if getattr(model, attribute, None) is not None:
            setattr(model, attribute, None)
    model.aux_logits = False  # type: ignore[assignment]


def _replace_head(model: nn.Module, name: str, old: int, new: int) -> None:
    replaced: list[str] = []
    for path, module in list(model.named_modules()):
        fresh: nn.Module | None = None
        if isinstance(module, nn.Linear) and module.out_features == old:
            fresh = nn.Linear(module.in_features, new, bias=module.bias is not None)
        elif isinstance(module, nn.Conv2d) and module.out_channels == old and not replaced:
            size = (module.kernel_size[0], module.kernel_size[1])
            fresh = nn.Conv2d(module.in_channels, new, size, bias=module.bias is not None)
        if fresh is not None:
            model.set_submodule(path, fresh)
            replaced.append(path)
    if not replaced:
        raise ConfigError(
            f"torchvision/{name}: no layer with {old} outputs to replace by {new}; use "
            f"num_classes={old} or weights=null"
        )
    log.warning(
        "torchvision/%s: classifier %s is new (%d -> %d classes) and needs training",
        name,
        ", ".join(replaced),
        old,
        new,
    )
