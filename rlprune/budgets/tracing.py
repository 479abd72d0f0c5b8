"""One forward pass whose products are skipped: shapes and lifetimes are real, sums are zero."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rlprune.inputs import ExampleInputs, call, map_tensors
from rlprune.modes import attention_spelled_out, evaluating
from rlprune.ops import find
from rlprune.ops.skipping import zeros_like_result


class ShapeRun(TorchDispatchMode):
    """Run a network for its shapes alone, adding up multiply-accumulates on the way.

    Contractions (convolution, matrix products, attention) return zeros of the right shape; every
    other operator runs as it is, so that a forward with Python control flow takes its usual path.

    Attributes:
        macs: Multiply-accumulates seen so far, over the whole batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Intercept one operator."""
        kwargs = kwargs or {}
        count = find(func).macs
        if count is not None:
            result = zeros_like_result(func, args, kwargs)
            self.macs += count(args, result)
        elif func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
            with self:
                result = func.decompose(*args, **kwargs)
        else:
            result = func(*args, **kwargs)
        self.seen(result)
        return result

    def seen(self, result: Any) -> None:
        """Look at an operator's result."""


class LifetimeRun(ShapeRun):
    """A shape run that follows how many bytes of activations are alive.

    Attributes:
        live: Bytes of activation storage alive now.
        peak: Largest ``live`` so far.
    """

    def __init__(self, constant: nn.Module, inputs: ExampleInputs) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()
        for tensor in (*constant.parameters(), *constant.buffers()):
            self._known.add(tensor.untyped_storage()._cdata)
        map_tensors(inputs, self._enter)

    def seen(self, result: Any) -> None:
        """Take every new storage into account, until it is freed."""
        map_tensors(result, self._enter)

    def _enter(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._leave, key, size)
        return tensor

    def _leave(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def run_shapes(run: ShapeRun, model: nn.Module, example_inputs: ExampleInputs) -> None:
    """Send one eval-mode forward of ``model`` through ``run``."""
    with evaluating(model), attention_spelled_out(), torch.no_grad(), run:
        call(model, example_inputs)
