"""What the example inputs do not show: other branches, other sizes, other batches."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.compaction import build, discover
from rlprune.compaction.difference import difference
from rlprune.compaction.verify import masked_copy
from tests.structure.laws import half, hold, widths


class Fork(nn.Module):
    """One of two heads, as the sign of the input says."""

    def __init__(self, hidden: int = 6) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Linear(3, 8), nn.Linear(8, hidden), nn.Linear(8, hidden)
        self.o = nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.stem(x))
        return self.o(F.relu(self.a(h) if x.mean() > 0 else self.b(h)))


def test_the_branch_not_taken_shrinks_with_the_other() -> None:
    model, x = Fork().double(), torch.ones(2, 3, dtype=torch.float64)
    groups, small = hold(model, x)
    assert set(widths(groups)) == {"stem", "a"}
    masked = masked_copy(groups, half(groups))
    assert difference(masked, small, -x).agrees
    assert small.b.weight.shape == (3, 4)


class Switch(Fork):
    """A head that no input takes: a flag decides."""

    flag = True

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.stem(x))
        return self.o(F.relu(self.a(h) if self.flag else self.b(h)))


def test_what_an_unused_module_may_read_is_left_whole(caplog: pytest.LogCaptureFixture) -> None:
    model, x = Switch().double(), torch.randn(2, 3, dtype=torch.float64)
    with caplog.at_level(logging.WARNING):
        groups, small = hold(model, x)
    assert groups.unused == ("b.weight", "b.bias")
    assert "'b' does not run" in groups["stem"].reason
    assert "'b' does not run" in groups["a"].reason
    assert "does not run on the example inputs" in groups["b"].reason
    assert "b.weight" in caplog.text
    small.flag = model.flag = False
    torch.testing.assert_close(small(x), model(x))


def test_unused_parameters_freeze_only_what_fits_them() -> None:
    class Wider(Switch):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.mid = nn.Linear(8, 7), nn.Linear(7, 6)

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.stem(x))
            return self.o(F.relu(self.mid(F.relu(self.a(h))) if self.flag else self.b(h)))

    groups, _ = hold(Wider().double(), torch.randn(2, 3, dtype=torch.float64))
    assert widths(groups) == {"a": 7}


def test_dropout_of_whole_channels_beside_an_unused_parameter() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.drop, self.o = nn.Conv2d(3, 8, 1), nn.Dropout2d(), nn.Conv2d(8, 2, 1)
            self.spare = nn.Parameter(torch.zeros(5))

        def forward(self, x: Tensor) -> Tensor:
            return self.o(self.drop(F.relu(self.a(x))))

    groups, _ = hold(Spare().double().eval(), torch.randn(2, 3, 6, 6, dtype=torch.float64))
    assert widths(groups) == {"a": 8}


class Reshaped(nn.Module):
    """Positions and channels mixed by a reshape that should have been a transpose."""

    def __init__(self, size: int | None = None) -> None:
        super().__init__()
        self.a, self.o, self.size = nn.Linear(3, 32), nn.Conv2d(32, 2, 1), size

    def forward(self, x: Tensor) -> Tensor:
        if self.size is not None and x.shape[-1] != self.size:
            raise ValueError("another size")
        batch, _, height, width = x.shape
        h = F.relu(self.a(x.flatten(2).transpose(1, 2)))
        return self.o(h.reshape(batch, -1, height, width))


def test_ties_that_the_size_decides_are_left_whole() -> None:
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    groups, _ = hold(Reshaped().double(), x)
    assert not groups.prunable
    fixed, _ = hold(Reshaped(4).double(), x)
    assert widths(fixed) == {"a": 2}


@pytest.mark.parametrize("size", [(4, 4), (6, 10)])
def test_maps_and_sequences_hold_at_another_size(size: tuple[int, int]) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.GroupNorm(4, 12), nn.ReLU(), nn.Conv2d(12, 8, 3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    ).double()  # fmt: skip
    groups = discover(model, torch.randn(2, 3, 8, 8, dtype=torch.float64))
    plan = half(groups)
    other = torch.randn(3, 3, *size, dtype=torch.float64)
    assert set(widths(groups)) == {"0", "3"}
    assert difference(masked_copy(groups, plan), build(groups, plan), other).agrees
