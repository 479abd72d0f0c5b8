"""Temporary states of a network: switched on for a block of code, put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[nn.Module]:
    """Put a network into eval mode and restore every module's own training flag afterwards.

    Args:
        module: The network.

    Yields:
        The network, in eval mode.
    """
    flags = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield module
    finally:
        for part, training in flags:
            part.training = training


@contextmanager
def attention_spelled_out() -> Iterator[None]:
    """Switch off the fused fast path of ``nn.MultiheadAttention`` and ``nn.TransformerEncoder``.

    The fast path hides a whole layer behind one operator; counters need to see its products.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
