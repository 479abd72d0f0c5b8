"""Layers of which a plan left nothing: gone, with the rest numbered anew."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.compaction.caches import number_caches, outermost
from rlprune.integrations.hf.architecture import is_stand_in
from rlprune.observe import Observation, Site, stream

Cuts = dict[int, tuple[int, ...]]
"""Former number of layers of a stack -> which of them are left."""


def close_up(model: Any) -> Cuts:
    """Take layers that return what they are given out of a network's stacks, in place.

    A layer is idle if a plan dropped branches in it and a forward pass shows that its output is
    its input: every layer with a residual connection around what was dropped, none that normalises
    afterwards (BERT's). The attention layers left are numbered for the cache without gaps, so that
    the first one knows how much was read.

    Args:
        model: a network of transformers, pruned or not.

    Returns:
        What became of each stack that lost layers.
    """
    stacks = {
        path: module
        for path, module in outermost(model)
        if any(is_stand_in(part) for part in module.modules())
    }
    if not stacks:
        return {}
    cuts: Cuts = {}
    for path, idle in _idle(model, stacks).items():
        stack = stacks[path]
        kept = tuple(at for at in range(len(stack)) if at not in idle)
        if not idle or not kept:
            continue
        cuts[len(stack)] = kept
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, nn.ModuleList(stack[at] for at in kept))
    number_caches(model)
    return cuts


def _idle(model: Any, stacks: dict[str, nn.ModuleList]) -> dict[str, set[int]]:
    """Layers with stand-ins that return their input, by stack."""
    found: dict[str, set[int]] = {path: set() for path in stacks}
    sinks: dict[Any, Any] = {}
    for path, stack in stacks.items():
        for at, layer in enumerate(stack):
            if any(is_stand_in(part) for part in layer.modules()):
                watch = _Watch(found[path], at)
                sinks[Site(f"{path}.{at}", "input")] = watch.entered
                sinks[Site(f"{path}.{at}")] = watch.left
    with contextlib.suppress(Exception):  # whatever networks raise for a sample of another kind
        stream(model, [(_sample(model), None)], sinks)
    return found


class _Watch:
    """Compares what goes into a layer with what comes out."""

    def __init__(self, found: set[int], at: int) -> None:
        self._found, self._at = found, at
        self._given: Tensor | None = None

    def entered(self, seen: Observation) -> None:
        self._given = seen.value

    def left(self, seen: Observation) -> None:
        if self._given is not None and torch.equal(self._given, seen.value):
            self._found.add(self._at)


def _sample(model: Any) -> dict[str, Tensor]:
    """Some input of a network's main kind.

    Raises:
        ValueError: it takes other inputs than tokens and images.
    """
    device, config = next(model.parameters()).device, model.config
    if getattr(model, "main_input_name", "") == "pixel_values":
        side = getattr(config, "image_size", 224)
        sides = side if isinstance(side, (tuple, list)) else (side, side)
        shape = (1, getattr(config, "num_channels", 3), *sides)
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(shape, generator=generator).to(device)
        return {"pixel_values": pixels.to(next(model.parameters()).dtype)}
    if getattr(model, "main_input_name", "") != "input_ids":
        raise ValueError("no sample")
    ids = torch.arange(4, device=device).clamp(max=config.vocab_size - 1)[None]
    decoder = {"decoder_input_ids": ids} if getattr(config, "is_encoder_decoder", False) else {}
    return {"input_ids": ids, **decoder}
