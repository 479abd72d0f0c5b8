"""Batch-normalisation statistics of a network whose units were removed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from rlprune.batches import as_batches
from rlprune.compensation.base import METHODS, Context
from rlprune.compensation.statistics import batch_norms
from rlprune.errors import DataError
from rlprune.inputs import call_safely
from rlprune.modes import evaluating
from rlprune.observe import Observation, Recorder, Site
from rlprune.observe.moments import Moments

_BatchNorm = nn.modules.batchnorm._BatchNorm


@METHODS.register("bn")
class BatchNormRecalibration:
    """Recompute running statistics on the calibration batches."""

    def apply(self, context: Context) -> None:
        """Recalibrate the compacted network.

        Raises:
            DataError: There is no calibration data.
        """
        recalibrate(context.module, context.required("bn"))


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
    names = {id(part): path for path, part in module.named_modules()}
    layers = batch_norms(module)
    if not layers:
        return module
    pooled = [_Pooled() for _ in layers]
    recorder = Recorder(
        module,
        {
            Site(names[id(layer)], "input"): entry.note
            for layer, entry in zip(layers, pooled, strict=True)
        },
    )
    kept = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    try:
        with evaluating(module), torch.no_grad(), recorder:
            for layer in layers:
                layer.training, layer.momentum, layer.num_batches_tracked = True, 1.0, None
            _run(module, as_batches(batches), layers, pooled)
    finally:
        for layer, (momentum, tracked) in zip(layers, kept, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, tracked
    for layer, entry in zip(layers, pooled, strict=True):
        entry.write(layer)
    return module


class _Pooled:
    """Pooled moments of one layer's input."""

    def __init__(self) -> None:
        self._batch = 0
        self._moments = Moments(cross=False)

    def note(self, seen: Observation) -> None:
        """Note how many positions per channel the layer is about to see."""
        self._batch = seen.value.numel() // seen.value.shape[1]

    def add(self, layer: _BatchNorm) -> None:
        """Merge the batch statistics the layer has just stored."""
        if not self._batch:
            return
        assert layer.running_mean is not None
        assert layer.running_var is not None
        spread = layer.running_var.double() * (self._batch - 1)
        self._moments.merge(self._batch, layer.running_mean.double(), spread)
        self._batch = 0

    def write(self, layer: _BatchNorm) -> None:
        """Store the pooled statistics; a layer the batches never reached keeps its own."""
        if not self._moments.count:
            return
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.copy_(self._moments.mean)
        layer.running_var.copy_(self._moments.covariance)


def _run(
    module: nn.Module,
    batches: Iterable[Any],
    layers: list[_BatchNorm],
    pooled: list[_Pooled],
) -> None:
    seen = 0
    for inputs, _ in batches:
        try:
            call_safely(module, inputs)
        except ValueError as error:
            raise DataError(
                f"recalibration needs more than one value per channel in every batch: {error}"
            ) from error
        for layer, entry in zip(layers, pooled, strict=True):
            entry.add(layer)
        seen += 1
    if not seen:
        raise DataError("recalibration needs at least one calibration batch")
