"""Networks that normalise by the statistics of the batch at hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

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
