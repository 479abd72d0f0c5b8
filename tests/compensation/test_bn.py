"""Recalibrated statistics are those of all calibration data together."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from rlprune.compensation import batch_statistics, recalibrate
from rlprune.errors import DataError


def images() -> Tensor:
    return torch.tensor(load_digits().images[:150], dtype=torch.float32)[:, None] / 16


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(4, 3, 3),
        nn.BatchNorm2d(3, momentum=None),
    )


@pytest.mark.parametrize("size", [150, 64, 7])
def test_the_first_layer_gets_the_moments_of_all_data_in_any_batching(size: int) -> None:
    net = network()
    recalibrate(net, list(images().split(size)))
    hidden = net[0](images()).transpose(0, 1).flatten(1)
    assert torch.allclose(net[1].running_mean, hidden.mean(1), atol=1e-6)
    assert torch.allclose(net[1].running_var, hidden.var(1), atol=1e-6)


def test_one_batch_gives_the_outputs_of_batch_statistics_in_every_layer() -> None:
    net = network()
    with batch_statistics(net), torch.no_grad():
        expected = net(images())
    recalibrate(net, (images(), torch.zeros(150)))
    with torch.no_grad():
        found = net.eval()(images())
    # The running variance is unbiased (n - 1), the batch one is not: n is 150 * 16 here.
    assert torch.allclose(found, expected, atol=5e-3)


def test_only_running_statistics_change() -> None:
    net = network()
    net[1].eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    recalibrate(net, images())
    changed = {
        key for key, value in net.state_dict().items() if not torch.equal(value, before[key])
    }
    assert changed == {f"{layer}.{name}" for layer in (1, 5) for name in _STATISTICS}
    assert (net[1].momentum, net[5].momentum) == (0.1, None)
    assert [part.training for part in net] == [True, False, True, True, True, True]


_STATISTICS = ("running_mean", "running_var")


def test_batch_statistics_leave_everything_as_it_was() -> None:
    net = network()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with batch_statistics(net):
        assert not net[3].training
        net(images())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(part.training for part in net)
    assert net[1].track_running_stats


def test_a_layer_the_data_never_reaches_keeps_its_statistics() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.BatchNorm2d(1)
            self.unused = nn.BatchNorm2d(1)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    net = Unused()
    recalibrate(net, images())
    assert net.unused.running_var.item() == 1.0
    assert net.used.running_var.item() == pytest.approx(images().var().item())


def test_data_that_cannot_serve_is_refused() -> None:
    with pytest.raises(DataError, match="at least one calibration batch"):
        recalibrate(network(), None)
    with pytest.raises(DataError, match="more than one value per channel"):
        recalibrate(nn.Sequential(nn.BatchNorm1d(3)), torch.zeros(1, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(6, 5, 7, 9), (4, 1, 6, 6), (1, 3, 8, 1), (2, 64, 4, 4)])
@pytest.mark.parametrize("affine", [True, False])
def test_few_channels_are_normalised_as_pytorch_does(
    shape: tuple[int, ...], dtype: torch.dtype, affine: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.BatchNorm2d(shape[1], affine=affine)
    images = (5 + 3 * torch.randn(shape, generator=generator)).to(dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    wide = images.double()
    expected = (wide - wide.mean((0, 2, 3), keepdim=True)) / (
        wide.var((0, 2, 3), unbiased=False, keepdim=True) + layer.eps
    ).sqrt()
    if affine:
        with torch.no_grad():
            for parameter in (layer.weight, layer.bias):
                parameter.copy_(torch.rand(shape[1], generator=generator))
        expected = expected * layer.weight[:, None, None] + layer.bias[:, None, None]
    with batch_statistics(layer), torch.no_grad():
        found = layer(images)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found.double(), expected.detach(), rtol=tolerance, atol=tolerance)


def test_batch_statistics_can_be_differentiated() -> None:
    layer = nn.BatchNorm2d(3)
    images = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    with batch_statistics(layer):
        layer(images).square().sum().backward()
    assert layer.weight.grad is not None
    assert "forward" not in layer.__dict__
