"""Gradient checkpointing: activations of repeated blocks are computed again, not kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from rlprune.errors import TrainingError


@contextmanager
def recomputing(model: nn.Module) -> Iterator[None]:
    """Within it, blocks of a network keep their inputs alone for the backward pass.

    Hugging Face networks do it their own way. Elsewhere the blocks are the entries of the
    outermost lists and sequences of at least two that have parameters and no batch normalisation,
    which would count every batch twice (Chen et al. 2016, arXiv:1604.06174).

    Args:
        model: The network.

    Raises:
        TrainingError: It has no such blocks.
    """
    own: Any = getattr(model, "gradient_checkpointing_enable", None)
    if callable(own) and getattr(model, "supports_gradient_checkpointing", False):
        own(gradient_checkpointing_kwargs={"use_reentrant": False})
        try:
            yield
        finally:
            model.gradient_checkpointing_disable()  # type: ignore[operator]
        return
    blocks = list(_blocks(model))
    if not blocks:
        raise TrainingError(
            f"checkpointing: {type(model).__name__} has no repeated blocks without batch "
            "normalisation; set checkpointing=false, or accumulate= to need less memory"
        )
    for block in blocks:
        block.__dict__["forward"] = partial(_recomputed, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.__dict__["forward"]


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        found: list[nn.Module] = []
        if isinstance(child, (nn.ModuleList, nn.Sequential)):
            found = [part for part in child if _suits(part)]
        if len(found) > 1:
            yield from found
        else:
            yield from _blocks(child)


def _suits(block: nn.Module) -> bool:
    parts = list(block.modules())
    return (
        len(parts) > 1
        and any(True for _ in block.parameters())
        and not any(isinstance(part, (_BatchNorm, nn.ModuleList)) for part in parts)
    )
