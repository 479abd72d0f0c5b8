"""Batch normalisation over the batch of all processes, not over the part of one."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_FORMS = {
    functional.batch_norm: inspect.signature(functional.batch_norm),
    torch.batch_norm: inspect.Signature(
        [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD)
            for name in (
                "input", "weight", "bias", "running_mean", "running_var", "training", "momentum",
                "eps", "cudnn_enabled",
            )
        ]
    ),
}  # fmt: skip


class SharedStatistics(TorchFunctionMode):
    """Within it, batch normalisations in training take mean and variance over all processes.

    What ``torch.nn.SyncBatchNorm`` does, for any device, and for modules with a forward of their
    own around the normalisation; the network stays as it is. Gradients flow through the statistics
    to every process.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        form = _FORMS.get(func)
        if form is None:
            return func(*args, **(kwargs or {}))
        bound = form.bind(*args, **(kwargs or {}))
        bound.apply_defaults()
        options = bound.arguments
        if not options["training"]:
            return func(*args, **(kwargs or {}))
        return _normalised(
            options["input"], options["weight"], options["bias"], options["running_mean"],
            options["running_var"], options["momentum"], options["eps"],
        )  # fmt: skip


def _normalised(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """Normalise this process's part ``[N, C, ...]`` of a batch."""
    dims = [0, *range(2, input.ndim)]
    shape = (1, -1) + (1,) * (input.ndim - 2)
    values = input if input.dtype == torch.float64 else input.float()
    count = values.new_full((1,), values.numel() / values.shape[1])
    total: Tensor = _Sum.apply(torch.cat([values.sum(dims), count]))
    mean, counted = total[:-1] / total[-1:], total[-1:].detach()
    # Centred first: the difference of two large sums would lose small variances.
    centred = values - mean.view(shape)
    spread: Tensor = _Sum.apply(centred.square().sum(dims)) / counted
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            unbiased = spread * counted / (counted - 1).clamp_min(1)
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    scale = torch.rsqrt(spread + eps)
    scale = scale if weight is None else scale * weight.to(values.dtype)
    found = centred * scale.view(shape)
    found = found if bias is None else found + bias.to(values.dtype).view(shape)
    return found.to(input.dtype)


class _Sum(torch.autograd.Function):
    """The sum over all processes; each of them gets the gradients of all."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        found = value.clone()
        torch.distributed.all_reduce(found)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        found = gradient.contiguous().clone()
        torch.distributed.all_reduce(found)
        return found
