"""Parameters, bytes, peak memory and latency."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlprune.budgets import (
    Bytes,
    Latency,
    PeakMemory,
    count_bytes,
    count_params,
    peak_memory,
)
from rlprune.budgets.latency import LatencyMeter, LatencySettings
from rlprune.errors import BudgetError


def mlp(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def test_params_and_bytes_count_shared_tensors_once() -> None:
    shared = nn.Linear(4, 4, bias=False)
    net = nn.Sequential(shared, shared, nn.BatchNorm1d(4))
    assert count_params(net) == 16 + 8
    assert count_bytes(net) == 4 * (16 + 8 + 8) + 8
    assert Bytes(0.5).resolve(net, torch.zeros(2, 4)).limit == count_bytes(net) / 2


def test_peak_memory_of_a_chain_is_its_widest_pair() -> None:
    net = nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 16), nn.Linear(16, 2))
    inputs = torch.zeros(1, 8)
    # The caller holds the inputs (8) throughout; the widest moment holds both 32 and 16.
    assert peak_memory(net, inputs) == 4 * (8 + 32 + 16)


def test_peak_memory_knows_in_place_operators_and_residuals() -> None:
    class Block(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)
            self.relu = nn.ReLU(inplace)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.relu(self.linear(x))

    assert peak_memory(Block(True), torch.zeros(1, 8)) == 4 * 8 * 3
    assert peak_memory(Block(False), torch.zeros(1, 8)) == 4 * 8 * 3
    wide = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    assert peak_memory(wide, torch.zeros(1, 8)) == 4 * 8 * 3
    wide[1] = nn.ReLU(inplace=True)
    assert peak_memory(wide, torch.zeros(1, 8)) == 4 * (8 + 8 + 1)


def test_peak_memory_is_deterministic_and_follows_the_batch_size() -> None:
    net = mlp(32)
    one = PeakMemory(0.5, batch_size=1).resolve(net, torch.zeros(4, 64))
    four = PeakMemory(0.5, batch_size=4).resolve(net, torch.zeros(4, 64))
    assert four.dense == 4 * one.dense
    assert one.value(net, torch.zeros(4, 64)) == one.dense
    with pytest.raises(BudgetError, match="batch_size must be at least 1, got 0"):
        PeakMemory(0.5, batch_size=0)


def test_latency_is_the_reference_times_the_median_ratio() -> None:
    meter = LatencyMeter(mlp(64), torch.zeros(1, 64), LatencySettings(repeats=5), reference_ms=8.0)
    meter.ratios = lambda candidate: [0.5, 0.25, 40.0]  # type: ignore[method-assign]
    assert meter(mlp(8), torch.zeros(1, 64)) == 4.0
    assert meter.with_reference(2.0).reference_ms == 2.0
    assert meter.reference_ms == 8.0


def test_latency_limit_is_relative_to_the_dense_network_and_threads_are_restored() -> None:
    net = mlp(64)
    threads = torch.get_num_threads()
    budget = Latency(limit=0.7, batch_size=16, threads=1, repeats=5)
    resolved = budget.resolve(net, torch.zeros(1, 64))
    assert resolved.limit == pytest.approx(0.7 * resolved.dense)
    assert resolved.measured
    assert resolved.value(mlp(8), torch.zeros(1, 64)) > 0
    assert (torch.get_num_threads(), net.training) == (threads, True)


def test_latency_takes_one_ratio_per_repeat() -> None:
    meter = LatencyMeter(mlp(64), torch.zeros(1, 64), LatencySettings(repeats=5))
    assert len(meter.ratios(mlp(8))) == 5
    assert meter.reference_ms > 0


def test_latency_restored_states_values_against_the_earlier_reference() -> None:
    resolved = Latency(limit=0.7, repeats=3).resolve(mlp(8), torch.zeros(1, 64))
    earlier = resolved.restored(limit=70.0, dense=100.0)
    assert (earlier.limit, earlier.dense) == (70.0, 100.0)
    assert earlier.fn.reference_ms == 100.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repeats": 0}, "repeats must be at least 1, got 0"),
        ({"dtype": "int8"}, "dtype must be one of float32, .* got 'int8'"),
        ({"device": "nowhere"}, "device 'nowhere' cannot be used here"),
        ({"warmup": -1}, "warmup must not be negative"),
    ],
)
def test_latency_names_a_wrong_setting(settings: dict[str, object], message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        Latency(0.7, **settings)  # type: ignore[arg-type]
