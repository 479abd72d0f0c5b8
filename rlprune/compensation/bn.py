"""Batch-normalisation statistics of a network whose units were removed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlprune.batches import as_batches
from rlprune.errors import DataError
from rlprune.inputs import call
from rlprune.modes import evaluating

_BatchNorm = nn.modules.batchnorm._BatchNorm
_FEW_CHANNELS = 64


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """Every batch normalisation that keeps running statistics."""
    return [
        part
        for part in module.modules()
        if isinstance(part, _BatchNorm) and part.running_mean is not None
    ]


@contextmanager
def batch_statistics(module: nn.Module) -> Iterator[None]:
    """Normalise by the statistics of the batch at hand; running statistics stay as they are.

    Everything but batch normalisation runs in eval mode inside. Where no gradients are recorded,
    layers of few channels take a shorter way to the same result (see `_normalise`).

    Args:
        module: The network.
    """
    layers = batch_norms(module)
    before = [layer.track_running_stats for layer in layers]
    ordinary = [
        layer
        for layer in layers
        if type(layer).forward is _BatchNorm.forward and "forward" not in layer.__dict__
    ]
    with evaluating(module):
        for layer in layers:
            layer.training, layer.track_running_stats = True, False
        for layer in ordinary:
            layer.forward = partial(_normalise, layer)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for layer in ordinary:
                del layer.forward
            for layer, tracked in zip(layers, before, strict=True):
                layer.track_running_stats = tracked


def _normalise(layer: _BatchNorm, x: Tensor) -> Tensor:
    r"""What the layer computes from the statistics of the batch.

    On a processor, PyTorch's normalisation of images laid out channels last works along the
    channels, which leaves vector units nearly idle where there are a dozen of them. Here a row of
    pixels counts as one long row of channels; its statistics are pooled over the pixels by

    .. math:: m = \overline{m_w}, \qquad v = \overline{v_w} + \overline{(m_w - m)^2}
    """
    few = x.ndim == 4 and x.shape[1] < _FEW_CHANNELS and x.shape[0] * x.shape[2] > 1
    if (
        not few
        or x.device.type != "cpu"
        or x.dtype not in (torch.float32, torch.bfloat16)
        or torch.is_grad_enabled()
        or not x.is_contiguous(memory_format=torch.channels_last)
    ):
        return _BatchNorm.forward(layer, x)
    samples, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).view(samples * height, width * channels)
    scratch = torch.empty(2, width * channels)
    moments = torch.batch_norm_update_stats(rows, scratch[0], scratch[1], 1.0)
    means, variances = (moment.view(width, channels) for moment in moments)
    mean = means.mean(0)
    variance = variances.mean(0) + (means - mean).square_().mean(0)
    weight, bias = (
        None if vector is None else vector.repeat(width) for vector in (layer.weight, layer.bias)
    )
    normal = functional.batch_norm(
        rows, mean.repeat(width), variance.repeat(width), weight, bias, False, 0.0, layer.eps
    )
    return normal.view(samples, height, width, channels).permute(0, 3, 1, 2)


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
