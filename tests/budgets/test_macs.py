"""MACs equal what is counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from rlprune.budgets import count_macs


class Attention(nn.Module):
    """Scaled dot-product attention of an input with itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.scaled_dot_product_attention(x, x, x[..., :3])


class Products(nn.Module):
    """One product of each kind of operator."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batched = torch.einsum("bij,bkj->bik", x, x)
        return torch.baddbmm(batched, x, x.transpose(1, 2)) @ x[0, 0, :1].expand(x.shape[1])


def conv_output(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel) // stride + 1


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_convolution(groups: int) -> None:
    net = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=groups)
    side = conv_output(11, 3, 2, 1)
    assert count_macs(net, torch.zeros(1, 8, 11, 11)) == side**2 * 16 * (8 // groups) * 9


def test_transposed_convolution_counts_its_input_positions() -> None:
    net = nn.ConvTranspose2d(4, 6, 3, stride=2)
    assert count_macs(net, torch.zeros(1, 4, 5, 5)) == 25 * 4 * 6 * 9


def test_linear_counts_every_leading_position() -> None:
    assert count_macs(nn.Linear(7, 5), torch.zeros(2, 3, 7)) == 3 * 7 * 5
    assert count_macs(nn.Linear(7, 5, bias=False), torch.zeros(2, 7)) == 7 * 5


def test_attention_counts_scores_and_weighted_sum() -> None:
    heads, length, size = 2, 6, 4
    macs = count_macs(Attention(), torch.zeros(1, heads, length, size))
    assert macs == heads * length * length * (size + 3)


def test_multihead_attention_is_not_hidden_by_the_fast_path() -> None:
    length, width, hidden = 5, 16, 32
    net = nn.TransformerEncoderLayer(width, 4, hidden, batch_first=True)
    by_hand = length * (4 * width**2 + 2 * width * hidden) + 2 * length**2 * width
    before = torch.backends.mha.get_fastpath_enabled()
    assert count_macs(net, torch.zeros(3, length, width)) == by_hand
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_batched_products() -> None:
    rows, columns = 3, 4
    products = 2 * rows * rows * columns + rows * rows
    assert count_macs(Products(), torch.zeros(2, rows, columns)) == products


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_recurrent(kind: type[nn.Module], gates: int) -> None:
    net = kind(8, 16, batch_first=True)
    assert count_macs(net, torch.zeros(2, 5, 8)) == 5 * gates * 16 * (8 + 16)


def test_independent_of_batch_size_and_of_inference_mode() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    by_hand = 36 * 4 * 27 + 4 * 36 * 2
    assert count_macs(net, torch.zeros(1, 3, 8, 8)) == by_hand
    with torch.inference_mode():
        assert count_macs(net, torch.zeros(5, 3, 8, 8)) == by_hand


def test_leaves_the_network_as_it_was() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    net[1].eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    count_macs(net, torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert (net.training, net[0].training, net[1].training) == (True, True, False)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
