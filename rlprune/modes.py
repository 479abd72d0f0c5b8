"""Temporary states of a network: switched on for a block of code, put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def evaluating(module: nn.Module) -> Iterator[nn.Module]:
    """Put a network into eval mode and restore every module's own training flag afterwards.

    Caches that modules drop when their mode is set are dropped before and after.

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
        module.eval()
        for part, training in flags:
            if part.training is not training:
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


@contextmanager
def noise_stilled() -> Iterator[None]:
    """Make what a network draws the same from run to run, and for every width.

    Random floating-point numbers are all one half, so that a smaller tensor of them holds the same
    noise, and nothing is dropped; random integers and orders come from a fixed seed. The global
    generators stay as they are.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=list(devices)):
        torch.manual_seed(0)
        with _StillNoise():
            yield


_DRAWS = frozenset(
    """bernoulli bernoulli_ cauchy cauchy_ exponential exponential_ geometric geometric_ log_normal
    log_normal_ normal normal_ normal_functional poisson rand rand_like randn randn_like uniform
    uniform_ _standard_gamma""".split()
)
_FROM_VALUES = frozenset(["normal", "bernoulli", "poisson", "_standard_gamma"])
"""Draws around the values of their first argument: those values take the noise's place."""


class _StillNoise(TorchDispatchMode):
    """Leaves out what is random in drawn floating-point numbers, and dropout."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name == "native_dropout":
            return args[0].clone(), torch.ones_like(args[0], dtype=torch.bool)
        result = func(*args, **(kwargs or {}))
        if name in _DRAWS and result.is_floating_point():
            around = name in _FROM_VALUES and isinstance(args[0], Tensor)
            result.copy_(args[0]) if around else result.fill_(0.5)
        return result
