"""Places of attention layers in a key-value cache."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def number_caches(model: nn.Module) -> None:
    """Number the layers that keep something in a cache without gaps, in place.

    Layers of transformers know their place in a cache by ``layer_idx``, and generation asks place 0
    how much was read: a network whose first attention was dropped would never know. Networks that
    treat layers of different kinds by their number are left as they are.

    Args:
        model: a network without some of its branches.
    """
    kinds = getattr(getattr(model, "config", None), "layer_types", None) or ()
    if len(set(kinds)) > 1:
        return
    for _, stack in outermost(model):
        numbered = [
            [part for part in layer.modules() if type(vars(part).get("layer_idx")) is int]
            for layer in stack
        ]
        for place, parts in enumerate(filter(None, numbered)):
            for part in parts:
                part.layer_idx = place  # type: ignore[assignment]


def outermost(model: nn.Module) -> Iterator[tuple[str, nn.ModuleList]]:
    """Lists of modules that lie in no other one, by path."""
    found: list[str] = []
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(path.startswith(f"{p}.") for p in found):
            found.append(path)
            yield path, module
