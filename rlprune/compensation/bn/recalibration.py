"""Batch-normalisation statistics of a network whose units were removed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.batches import as_batches
from rlprune.compensation.base import METHODS, Context
from rlprune.compensation.statistics import batch_norms
from rlprune.errors import DataError
from rlprune.inputs import call
from rlprune.modes import evaluating

_BatchNorm = nn.modules.batchnorm._BatchNorm


@METHODS.register("bn")
class BatchNormRecalibration:
    """Recompute running statistics on the calibration batches."""

    def apply(self, context: Context) -> None:
        """Recalibrate the compacted network.

        Raises:
            DataError: There is no calibration data.
        """
        if not context.batches:
            raise DataError("compensation 'bn' needs calibration data; pass calibration=...")
        recalibrate(context.module, context.batches)


def recalibrate(module: nn.Module, batches: Any) -> nn.Module:
    r"""Replace running statistics by those pooled over calibration batches.

    With ``n_b`` positions per channel, mean ``m_b`` and variance ``v_b`` in batch ``b``,

    .. math:: m = \frac{\sum_b n_b m_b}{N}, \qquad
              v = \frac{\sum_b n_b (v_b + (m_b - m)^2)}{N}\cdot\frac{N}{N-1}

    that is, the moments of all positions together rather than an exponential average that
    depends on the batches' order. Each batch is normalised by its own statistics on its way.

    Args:
        module: The network; changed in place, training flags restored.
        batches: Calibration data (see :func:`rlprune.batches.as_batches`); labels are not used.

    Returns:
        The module.

    Raises:
        DataError: There is no batch, or a layer saw a single value per channel.
    """
    layers = batch_norms(module)
    if not layers:
        return module
    moments = [_Moments() for _ in layers]
    handles = [
        layer.register_forward_pre_hook(moment.hook)
        for layer, moment in zip(layers, moments, strict=True)
    ]
    kept = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    try:
        with evaluating(module), torch.no_grad():
            for layer in layers:
                layer.training, layer.momentum, layer.num_batches_tracked = True, 1.0, None
            _run(module, as_batches(batches), layers, moments)
    finally:
        for handle in handles:
            handle.remove()
        for layer, (momentum, tracked) in zip(layers, kept, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, tracked
    for layer, moment in zip(layers, moments, strict=True):
        moment.write(layer)
    return module


class _Moments:
    """Pooled first and second moments of one layer's input."""

    def __init__(self) -> None:
        self.batch = 0
        self.count = 0
        self.mean: Tensor | None = None
        self.spread: Tensor | None = None

    def hook(self, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Note how many positions per channel the layer is about to see."""
        inputs = args[0]
        self.batch = inputs.numel() // inputs.shape[1]

    def add(self, layer: _BatchNorm) -> None:
        """Merge the batch statistics the layer has just stored (Chan et al., 1979)."""
        if not self.batch:
            return
        assert layer.running_mean is not None
        assert layer.running_var is not None
        mean = layer.running_mean.double()
        spread = layer.running_var.double() * (self.batch - 1)
        if self.mean is None or self.spread is None:
            self.count, self.mean, self.spread = self.batch, mean, spread
        else:
            total = self.count + self.batch
            delta = mean - self.mean
            self.mean = self.mean + delta * (self.batch / total)
            self.spread = self.spread + spread + delta**2 * (self.count * self.batch / total)
            self.count = total
        self.batch = 0

    def write(self, layer: _BatchNorm) -> None:
        """Store the pooled statistics; a layer the batches never reached keeps its own."""
        if self.mean is None or self.spread is None:
            return
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.copy_(self.mean)
        layer.running_var.copy_(self.spread / max(self.count - 1, 1))


def _run(
    module: nn.Module,
    batches: Iterable[Any],
    layers: list[_BatchNorm],
    moments: list[_Moments],
) -> None:
    seen = 0
    for inputs, _ in batches:
        try:
            call(module, inputs)
        except ValueError as error:
            raise DataError(
                f"recalibration needs more than one value per channel in every batch: {error}"
            ) from error
        for layer, moment in zip(layers, moments, strict=True):
            moment.add(layer)
        seen += 1
    if not seen:
        raise DataError("recalibration needs at least one calibration batch")
