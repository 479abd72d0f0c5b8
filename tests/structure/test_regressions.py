"""Networks that once broke a law, by what was wrong."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.budgets.metrics import count_macs
from rlprune.compaction import build, discover
from rlprune.errors import StructureError
from tests.structure.laws import half, hold, reason, widths


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_a_weight_that_is_a_sum_was_masked_in_one_term_only() -> None:
    class Merged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pre, self.base, self.o = nn.Linear(3, 5), nn.Linear(5, 6), nn.Linear(6, 2)
            self.extra = nn.Parameter(rand(6, 5))

        def forward(self, x: Tensor) -> Tensor:
            weight = self.base.weight + self.extra
            return self.o(F.relu(F.linear(F.relu(self.pre(x)), weight)))

    groups, _ = hold(Merged().double(), rand(2, 3))
    assert not groups["pre"].prunable


def test_a_roll_along_channels_lost_their_order() -> None:
    class Rolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.o = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.o(self.a(x).roll(1, dims=1))

    groups, _ = hold(Rolled().double(), rand(2, 3, 4, 4))
    assert "picked by number" in reason(groups, "a")


def test_a_roll_along_space_is_free() -> None:
    class Rolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.o = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.o(self.a(x).roll((1, 2), dims=(2, 3)))

    groups, _ = hold(Rolled().double(), rand(2, 3, 4, 4))
    assert widths(groups) == {"a": 6}


def test_macs_of_a_product_over_heads_and_their_features() -> None:
    class PerHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(rand(4, 2, 6)), nn.Parameter(rand(2, 6, 5))
            self.o = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(torch.einsum("btd,dhe->bthe", x, self.a))
            return self.o(torch.einsum("bthe,hef->btf", y, self.b))

    model, inputs = PerHead().double(), rand(2, 3, 4)
    groups, _ = hold(model, inputs)
    plan = half(groups)
    small = build(groups, plan)
    assert groups.macs(list(plan.widths.values())) == count_macs(small, inputs)


def test_macs_where_frozen_and_prunable_inputs_are_concatenated() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.o = nn.Linear(3, 4), nn.Linear(3, 6), nn.Linear(10, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.o(torch.cat([self.a(x).softmax(1), self.b(x)], 1))

    model, inputs = Mixed().double(), rand(2, 3)
    groups, small = hold(model, inputs)
    assert widths(groups) == {"b": 6}
    assert groups.macs([3]) == count_macs(small, inputs) == 3 * 4 + 3 * 3 + 7 * 2


def test_a_factory_call_froze_the_tensor_it_was_called_on() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.o = nn.Conv2d(3, 6, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.a(x))
            return self.o(torch.cat([y.new_zeros(y.shape[0], 2, *y.shape[2:]), y], 1))

    groups, _ = hold(Padded().double(), rand(2, 3, 4, 4))
    assert widths(groups) == {"a": 6}


def test_a_gated_linear_unit_had_no_rule() -> None:
    model = nn.Sequential(nn.Linear(3, 12), nn.GLU(), nn.Linear(6, 2)).double()
    groups, small = hold(model, rand(2, 3))
    assert widths(groups) == {"0": 6}
    assert small[0].weight.shape == (6, 3)


def test_replication_padding_of_volumes_had_no_rule() -> None:
    model = nn.Sequential(
        nn.Conv3d(2, 6, 3, padding=1, padding_mode="replicate"), nn.ReLU(),
        nn.Conv3d(6, 5, 3, padding=1, padding_mode="replicate"), nn.ReLU(), nn.Conv3d(5, 2, 1),
    ).double()  # fmt: skip
    groups, _ = hold(model, rand(1, 2, 4, 4, 4))
    assert widths(groups) == {"0": 6, "2": 5}


def test_a_constant_of_the_weights_shape_is_not_a_weight() -> None:
    class Ones(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.o = nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.a(x))
            return self.o(self.b(y) + F.linear(y, torch.ones_like(self.b.weight)))

    groups, _ = hold(Ones().double(), rand(2, 3))
    assert not groups["a"].prunable


def test_the_module_of_an_error_is_the_one_that_failed() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.Linear(5, 2)))
    with pytest.raises(StructureError, match=r" in 1\.1: RuntimeError"):
        discover(model, torch.zeros(2, 3))
