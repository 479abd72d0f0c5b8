"""What the example inputs do not show: other branches, other sizes, other batches."""

from __future__ import annotations

import logging
from typing import Any

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


class Other(nn.Module):
    """Other values go another way through the same layers."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.stem, self.o, self.way = nn.Linear(3, 8), nn.Linear(8, 2), way

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.stem(x))
        if x.mean() > 0:
            return self.o(h)
        if self.way == "written":
            return self.o(h.view(-1, 8).flip(0))
        return self.o(h.view(-1, 2, 4).flip(1).reshape(len(x), -1) + h)


@pytest.mark.parametrize("way", ["written", "tied"])
def test_another_way_through_the_same_layers(way: str) -> None:
    model, x = Other(way).double(), torch.ones(2, 3, dtype=torch.float64)
    groups, small = hold(model, x)
    assert difference(masked_copy(groups, half(groups)), small, -x).agrees


def test_a_single_sample_and_a_longer_text_may_go_another_way() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.e, self.a, self.o = nn.Embedding(9, 8), nn.Linear(8, 6), nn.Linear(6, 2)

        def forward(self, ids: Tensor) -> Tensor:
            h = self.e(ids)
            if ids.shape[1] > 7:
                h = h.view(*h.shape[:2], 2, 4).flip(2).flatten(2)
            y = F.relu(self.a(h))
            return self.o(y if len(ids) > 1 else y.view(1, -1, 6))

    ids = torch.arange(10).view(2, 5) % 9
    groups, small = hold(Alone().double(), ids)
    masked = masked_copy(groups, half(groups))
    for other in (ids[:1], ids.repeat(1, 2)):
        assert difference(masked, small, other).agrees


class Flattened(nn.Module):
    """A second head, that nothing here runs, reads whole maps or two of them side by side."""

    second = False

    def __init__(self, side_by_side: bool) -> None:
        super().__init__()
        self.side_by_side = side_by_side
        self.c, self.o = nn.Conv2d(3, 8, 1), nn.Linear(8, 2)
        self.other = nn.Linear(16 if side_by_side else 8 * 9, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.c(x))
        if not self.second:
            return self.o(h.mean((2, 3)))
        if self.side_by_side:
            return self.other(torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1))
        return self.other(h.flatten(1))


@pytest.mark.parametrize("side_by_side", [False, True])
def test_what_an_unused_layer_may_read_flattened(side_by_side: bool) -> None:
    model = Flattened(side_by_side).double()
    x = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    groups, small = hold(model, x)
    assert "'other' does not run" in groups["c"].reason
    small.second = model.second = True
    torch.testing.assert_close(small(x), model(x))


def test_an_auxiliary_head_that_needs_larger_pictures() -> None:
    class Aux(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3)
            self.o, self.aux = nn.Linear(8, 2), nn.Conv2d(8, 2, 9)

        def forward(self, x: Tensor) -> Any:
            h = F.relu(self.b(F.relu(self.a(x))))
            y = self.o(h.mean((2, 3)))
            return (y, self.aux(h)) if self.training else y

    groups, _ = hold(Aux().double(), torch.randn(2, 3, 8, 8, dtype=torch.float64))
    assert widths(groups) == {"a": 6, "b": 8}


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


@pytest.mark.parametrize("shape", [(2, 3, 12), (2, 3, 4, 4, 4)])
def test_signals_and_films_at_another_length(shape: tuple[int, ...]) -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            kind = nn.Conv1d if len(shape) == 3 else nn.Conv3d
            self.a, self.o = kind(3, 8, 1), kind(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.a(x))
            return self.o(h.transpose(1, 2).reshape(h.shape))

    groups, _ = hold(Turned().double(), torch.randn(shape, dtype=torch.float64))
    assert not groups.prunable


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
