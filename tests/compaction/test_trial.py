"""Law 9: what a forward cannot follow is left whole, with the reason; the rest is pruned."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlprune
from rlprune import compact
from rlprune.compaction import build, discover
from rlprune.compaction.difference import difference
from rlprune.compaction.plans import uneven_plan
from rlprune.compaction.verify import masked_copy
from rlprune.errors import StructureError
from rlprune.plan import Plan
from rlprune.structure import Groups
from tests.structure.laws import half, hold, reason, widths

IMAGE = torch.randn(2, 3, 8, 8, dtype=torch.float64)


def viewed(x: Tensor, *sizes: int) -> Tensor:
    """A function of the user's that is told sizes: no module's code, so they cannot follow."""
    return x.reshape(sizes)


class Baked(nn.Module):
    """A forward pass with a size written into it, between layers that can shrink."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 7, 3), nn.Conv2d(7, 8, 1)
        self.c, self.o = nn.Linear(288, 9), nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(F.relu(self.c(viewed(F.relu(self.b(F.relu(self.a(x)))), -1, 288))))


def test_a_written_size_freezes_the_group_that_meets_it_and_no_other() -> None:
    groups, _ = hold(Baked().double(), IMAGE)
    assert widths(groups) == {"a": 7, "c": 9}
    assert "view in the model's own forward" in reason(groups, "b")
    small = compact(groups.model, IMAGE, half(groups))
    assert difference(masked_copy(groups, half(groups)), small, IMAGE[:1]).agrees


def test_a_size_that_runs_but_mixes_units() -> None:
    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.o = nn.Linear(3, 5), nn.Linear(5, 12), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.o(viewed(F.relu(self.b(F.relu(self.a(x)))), -1, 4, 3).amax(1))

    groups, _ = hold(Blocks().double(), torch.randn(4, 3, dtype=torch.float64))
    assert widths(groups) == {"a": 5}


def test_a_factor_that_a_width_gives_is_noticed() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.o = nn.Linear(3, 5), nn.Linear(5, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.b(F.relu(self.a(x))))
            return self.o(h / h.shape[-1])

    groups, _ = hold(Scaled().double(), torch.randn(4, 3, dtype=torch.float64))
    assert widths(groups) == {"a": 5}
    assert "numbers" in reason(groups, "b")


class Gated(nn.Module):
    """A block that adds a table of fixed size through a list that no attribute names."""

    def __init__(self, width: int, baked: bool) -> None:
        super().__init__()
        self.up, self.down, self.baked = nn.Linear(6, width), nn.Linear(width, 6), baked

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.up(x))
        if self.baked:
            h = viewed(h, len(x), 3, 4).flatten(1)
        return x + self.down(h)


def test_only_the_blocks_that_fail_are_left_whole() -> None:
    model = nn.Sequential(nn.Linear(3, 6), *(Gated(12, k % 2 == 0) for k in range(6))).double()
    groups, _ = hold(model, torch.randn(2, 3, dtype=torch.float64))
    assert {"2.up", "4.up", "6.up"} <= set(widths(groups))
    assert not any(groups[f"{k}.up"].prunable for k in (1, 3, 5))
    assert "as in" in reason(groups, "3.up")


def test_groups_that_one_number_counts_are_tied() -> None:
    class Talking(nn.Module):
        """Heads are mixed between scores and values, and one number counts both."""

        def __init__(self) -> None:
            super().__init__()
            self.num_heads = 4
            self.q, self.k, self.v = (nn.Linear(8, 16) for _ in range(3))
            self.mix, self.o = nn.Conv2d(4, 4, 1), nn.Linear(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (
                f(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
                for f in (self.q, self.k, self.v)
            )
            weights = self.mix((q @ k.transpose(-2, -1)).softmax(-1))
            return self.o((weights @ v).transpose(1, 2).flatten(2))

    groups, small = hold(Talking().double(), torch.randn(2, 5, 8, dtype=torch.float64))
    assert list(widths(groups).values()) == [4]
    assert small.q.out_features == small.v.out_features == 8


def narrowest(groups: Groups) -> Plan:
    keep = {g.name: tuple(range(g.legal_widths()[0])) for g in groups.prunable}
    return Plan(keep, {g.name: g.width for g in groups.prunable})


class TestPlansThatTheFirstTrialDoesNotShow:
    def agree(self, groups: Groups, plan: Plan, x: Tensor) -> bool:
        return difference(masked_copy(groups, plan), build(groups, plan), x).agrees

    def test_a_squeeze_that_names_no_dimension(self) -> None:
        class Squeezed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.c, self.o = nn.Conv2d(3, 6, 3), nn.Linear(6, 2)

            def forward(self, x: Tensor) -> Tensor:
                return self.o(F.relu(self.c(x)).mean((2, 3), keepdim=True).squeeze())

        groups, _ = hold(Squeezed().double(), IMAGE)
        assert groups["c"].legal_widths() == (2, 3, 4, 5, 6)
        assert self.agree(groups, narrowest(groups), IMAGE)

    def test_a_grey_picture_made_coloured(self) -> None:
        class Coloured(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.c, self.d, self.o = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 6, 3), nn.Conv2d(6, 2, 1)

            def forward(self, x: Tensor) -> Tensor:
                h = F.relu(self.c(x))
                return self.o(F.relu(self.d(h.repeat(1, 3, 1, 1) if h.shape[1] == 1 else h)))

        groups, _ = hold(Coloured().double(), IMAGE)
        assert groups["c"].min_width == 2
        assert self.agree(groups, narrowest(groups), IMAGE)

    def test_a_shortcut_where_shapes_happen_to_agree(self) -> None:
        class Block(nn.Module):
            def __init__(self, into: int, out: int) -> None:
                super().__init__()
                self.c = nn.Conv2d(into, out, 3, padding=1)

            def forward(self, x: Tensor) -> Tensor:
                y = F.relu(self.c(x))
                return x + y if x.shape == y.shape else y

        model = nn.Sequential(
            nn.Conv2d(3, 8, 1), Block(8, 8), Block(8, 12), nn.Conv2d(12, 2, 1)
        ).double()
        groups, _ = hold(model, IMAGE)
        for width in groups["2.c"].legal_widths():
            keep = {"0": tuple(range(min(width, 8))), "2.c": tuple(range(width))}
            assert self.agree(groups, Plan(keep, {"0": 8, "2.c": 12}), IMAGE)

    def test_an_integer_of_a_layer_left_whole_follows_no_other(self) -> None:
        class Accident(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.o, self.n = (
                    nn.Linear(3, 8),
                    nn.Linear(8, 8),
                    nn.Linear(8, 2),
                    8,
                )

            def forward(self, x: Tensor) -> Tensor:
                h = F.relu(self.a(x)).view(-1, self.n, 1).squeeze(2)
                return self.o(F.relu(self.b(h / h.shape[1])))

        groups, _ = hold(Accident().double(), torch.randn(4, 3, dtype=torch.float64))
        assert widths(groups) == {"b": 8}


def test_noise_in_eval_mode_is_the_same_in_both_networks() -> None:
    class Sampled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.mean, self.spread = nn.Linear(3, 9), nn.Linear(9, 6), nn.Linear(9, 6)
            self.o = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = F.dropout(F.relu(self.a(x)), 0.3, training=True)
            spread = self.spread(h)
            return self.o(self.mean(h) + spread.exp() * torch.randn_like(spread))

    model, x = Sampled().double(), torch.randn(4, 3, dtype=torch.float64)
    groups, _ = hold(model, x)
    assert set(widths(groups).values()) == {9, 6}
    compact(model, x, half(groups))


def test_a_verdict_is_kept_with_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from rlprune.compaction import trial

    model = Baked().double()
    first = discover(model, IMAGE)
    monkeypatch.setattr(trial, "first_departure", lambda *_: pytest.fail("tried again"))
    assert discover(model, IMAGE).table() == first.table()


class TestWrappers:
    def network(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))

    @pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
    def test_they_are_taken_off(self, wrap: Any) -> None:
        model = self.network()
        groups = rlprune.discover(wrap(model), torch.randn(2, 3))
        assert groups.model is model
        assert type(build(groups, uneven_plan(groups))) is nn.Sequential

    def test_what_is_no_module(self) -> None:
        with pytest.raises(StructureError, match=r"a function, not a torch\.nn\.Module: give"):
            rlprune.discover(lambda x: x, torch.randn(2, 3))

    @pytest.mark.filterwarnings("ignore")
    def test_quantised_networks(self) -> None:
        model = torch.ao.quantization.quantize_dynamic(self.network(), {nn.Linear})
        with pytest.raises(StructureError, match=r"is quantised .* prune the floating-point"):
            rlprune.discover(model, torch.randn(2, 3))
