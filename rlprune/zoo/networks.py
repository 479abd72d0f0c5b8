"""Networks of the zoo: how to build each by name, with example inputs as small as it allows."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.errors import ConfigError

META_ABOVE = 200_000_000
"""Networks with more parameters are built without memory: their structure alone is checked."""


def families() -> dict[str, list[str]]:
    """Names of all networks by family."""
    import torchvision.models as tv

    from rlprune.zoo import transformers_tiny

    return {
        "classification": tv.list_models(module=tv),
        "segmentation": [f"segmentation/{n}" for n in tv.list_models(module=tv.segmentation)],
        "detection": [f"backbone/{n}" for n in tv.list_models(module=tv.detection)],
        "transformers": [f"hf/{n}" for n in transformers_tiny.BUILDERS],
    }


def names(*wanted: str) -> list[str]:
    """Names that match families ("classification", ...), globs or exact names; all when empty.

    "torchvision" stands for its three families. The smallest members of timm's families are found
    only if asked for ("timm", "timm/resnet*"), and so is one class of every model type of
    transformers ("hf", "hf/auto/*").

    Raises:
        ConfigError: something matches nothing.
    """
    known = families()
    everything = [n for family in known.values() for n in family]
    tv = [n for f in ("classification", "segmentation", "detection") for n in known[f]]
    known |= {"torchvision": tv}
    if any(w == "hf" or w.startswith("hf/auto/") for w in wanted):
        from rlprune.zoo import transformers_auto

        auto = [f"hf/auto/{kind}" for kind in transformers_auto.candidates()]
        known["hf"] = [*known["transformers"], *auto]
        everything += auto
    if any(w.split("/")[0] == "timm" for w in wanted):
        from rlprune.zoo import timm_smallest

        known["timm"] = [f"timm/{n}" for n in dict.fromkeys(timm_smallest.smallest().values())]
        everything += known["timm"]
    found: dict[str, None] = {}
    for pattern in wanted or ("torchvision", "transformers"):
        hits = known.get(pattern) or [n for n in everything if fnmatch(n, pattern)]
        if not hits:
            raise ConfigError(
                f"the zoo knows no '{pattern}'; give a family ({', '.join(known)}), "
                f"a name or a glob, such as {', '.join(everything[:4])}"
            )
        found.update(dict.fromkeys(hits))
    return list(found)


def create(name: str, seed: int = 0) -> tuple[nn.Module, Any]:
    """Build a network of the zoo with random weights, in float64 and eval mode.

    Weights that start at zero and normalisation statistics are randomised too, so that an error
    anywhere shows in the output. Networks above `META_ABOVE` parameters come on ``meta``.

    Returns:
        The network and example inputs (two samples).
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            if name.startswith(("timm/", "hf/auto/")):
                raise NotImplementedError("it is run, or small, in any case")
            with torch.device("meta"):
                model, shape = _build(name)
        except NotImplementedError:  # some constructors look at values
            model, shape = _build(name)
        if sum(p.numel() for p in model.parameters()) > META_ABOVE:
            return model.to("meta").double().eval(), _inputs(name, shape, "meta")
        if next(model.parameters()).is_meta:
            model, shape = _build(name)
        model = model.double().eval()
        randomise(model)
        return model, _inputs(name, shape, "cpu")


def randomise(model: nn.Module) -> None:
    """Give constant parameters and running statistics random values (global generator)."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                low = 0.5 if float(parameter.flatten()[0]) > 0.1 else -0.1
                parameter.uniform_(low, low + (1.0 if low > 0 else 0.2))
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for statistic, low, high in (
                    (module.running_mean, -0.2, 0.2),
                    (module.running_var, 0.5, 1.5),
                ):
                    if statistic is not None:
                        statistic.uniform_(low, high)


Shape = tuple[int, ...] | dict[str, Any]


def _build(name: str) -> tuple[nn.Module, Shape]:
    import torchvision.models as tv

    family, _, short = name.rpartition("/")
    if family == "timm":
        from rlprune.zoo import timm_smallest

        return timm_smallest.build(short)
    if family == "hf/auto":
        from rlprune.zoo import transformers_auto

        return transformers_auto.build(transformers_auto.candidates()[short])
    if family == "hf":
        from rlprune.zoo import transformers_tiny

        return transformers_tiny.build(short)
    if family == "segmentation":
        options: dict[str, Any] = {"weights": None, "weights_backbone": None}
        return tv.get_model(short, **options), (2, 3, 64, 64)
    if family == "backbone":
        detector = tv.get_model(short, weights=None, weights_backbone=None)
        size = 300 if short.startswith("ssd300") else 320 if short.startswith("ssdlite") else 96
        return detector.backbone, (2, 3, size, size)
    options, size = {"weights": None}, 64
    if short in ("googlenet", "inception_v3"):
        options |= {"init_weights": False}
        size = 64 if short == "googlenet" else 96
    elif short.startswith("vit_"):
        size = 64 if not short.endswith("_14") else 56
        options |= {"image_size": size}
    elif short.startswith("maxvit"):
        size = 224
    return tv.get_model(short, **options), (2, 3, size, size)


def _inputs(name: str, shape: Shape, device: str) -> Any:
    if isinstance(shape, dict):
        return {k: _place(v, device) for k, v in shape.items()}
    return torch.randn(shape, dtype=torch.float64, device=device)


def _place(value: Any, device: str) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(device, dtype=torch.float64 if value.is_floating_point() else None)
