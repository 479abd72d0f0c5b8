"""Forward passes and tensors no one listed: one small test each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.structure.laws import hold, widths


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def sequential(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers).double()


class TestForwardPasses:
    def test_data_dependent_control_flow_is_traced_with_values(self) -> None:
        class Branch(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 6)
                self.o, self.other = nn.Linear(6, 2), nn.Linear(5, 2)

            def forward(self, x: Tensor) -> Tensor:
                h = F.relu(self.a(x))
                if h.sum() > 0:
                    return self.o(F.relu(self.b(h)))
                return self.other(h)

        groups, _ = hold(Branch().double(), rand(4, 3))
        assert widths(groups) == {"b": 6}
        assert set(groups.unused) == {"other.weight", "other.bias"}

    def test_rows_picked_by_a_mask_of_values(self) -> None:
        class Picked(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.o = nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, 2)

            def forward(self, x: Tensor) -> Tensor:
                h = F.relu(self.b(F.relu(self.a(x))))
                return self.o(h[x[:, 0] > 0])

        groups, _ = hold(Picked().double(), rand(6, 3))
        assert widths(groups) == {"a": 5, "b": 4}

    def test_buffers_and_attributes_written_in_the_forward_pass(self) -> None:
        class Counting(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.o, self.calls = nn.Linear(3, 8), nn.Linear(8, 2), 0
                self.register_buffer("mask", torch.rand(8))
                self.register_buffer("count", torch.zeros(()))
                self.register_buffer("shift", torch.zeros(3), persistent=False)

            def forward(self, x: Tensor) -> Tensor:
                self.count += 1
                self.calls += 1
                return self.o(F.relu(self.a(x + self.shift)) * self.mask)

        model = Counting().double()
        groups, small = hold(model, rand(2, 3))
        assert model.calls == 0
        assert widths(groups) == {"a": 8}
        assert small.mask.shape == (4,)

    def test_an_auxiliary_head_that_only_training_runs(self) -> None:
        class Aux(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.n, self.b = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3)
                self.aux = nn.Sequential(nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
                self.aux_out, self.o = nn.Linear(4, 2), nn.Linear(8, 2)

            def forward(self, x: Tensor) -> Any:
                h = F.relu(self.n(self.a(x)))
                y = self.o(F.relu(self.b(h)).mean((2, 3)))
                return (y, self.aux_out(self.aux(h).mean((2, 3)))) if self.training else y

        groups, small = hold(Aux().double().eval(), rand(1, 3, 8, 8))
        assert widths(groups) == {"a": 6, "b": 8, "aux.0": 4}
        assert groups.unused == ()
        main, aux = small.train()(rand(2, 3, 8, 8))
        (main.sum() + aux.sum()).backward()
        assert small.aux[0].weight.grad.shape == (2, 3, 1, 1)

    def test_activation_checkpointing(self) -> None:
        class Checkpointed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.o = nn.Linear(3, 6), nn.Linear(6, 5), nn.Linear(5, 2)

            def part(self, x: Tensor) -> Tensor:
                return F.relu(self.b(F.relu(self.a(x))))

            def forward(self, x: Tensor) -> Tensor:
                return self.o(checkpoint(self.part, x, use_reentrant=False))

        groups, _ = hold(Checkpointed().double(), rand(2, 3))
        assert widths(groups) == {"a": 6, "b": 5}

    def test_a_traced_graph_module(self) -> None:
        plain = sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3))
        groups, _ = hold(torch.fx.symbolic_trace(plain), rand(2, 3, 8, 8))
        assert widths(groups) == {"0": 8}

    @pytest.mark.parametrize("write", ["mul", "fill", "select", "whole"])
    def test_a_constant_of_one_value_of_which_a_part_is_written(self, write: str) -> None:
        class Masked(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.o = nn.Linear(3, 8), nn.Linear(8, 2)

            def forward(self, x: Tensor) -> Tensor:
                h = self.a(x)
                mask = torch.ones(h.shape[1], dtype=x.dtype)
                if write == "mul":
                    mask[: h.shape[1] // 2].mul_(3.0)
                elif write == "fill":
                    mask[: h.shape[1] // 2].fill_(3.0)
                elif write == "select":
                    mask[0].fill_(3.0)
                else:
                    mask.fill_(3.0)
                return self.o(h * mask)

        groups, _ = hold(Masked().double(), rand(4, 3))
        assert widths(groups) == ({"a": 8} if write == "whole" else {})

    def test_in_place_work_on_views(self) -> None:
        class Views(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.o = nn.Linear(3, 8), nn.Linear(3, 4), nn.Linear(8, 2)

            def forward(self, x: Tensor) -> Tensor:
                h = self.a(x).relu_()
                first, _ = h.chunk(2, -1)
                first.mul_(self.b(x))
                return self.o(h)

        groups, _ = hold(Views().double(), rand(2, 3))
        assert sum(g.width for g in groups.prunable) == 4


class TestTensors:
    def test_bfloat16(self) -> None:
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3)
        ).bfloat16()
        _, small = hold(model, rand(2, 3, 8, 8).bfloat16())
        assert {p.dtype for p in small.parameters()} == {torch.bfloat16}

    def test_channels_last_stays(self) -> None:
        layout = torch.channels_last
        model = sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3)).to(
            memory_format=layout
        )
        _, small = hold(model, rand(2, 3, 8, 8).contiguous(memory_format=layout))
        assert all(small[i].weight.is_contiguous(memory_format=layout) for i in (0, 2))

    def test_networks_on_meta_are_discovered(self) -> None:
        with torch.device("meta"):
            model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
            groups = hold_structure(model, torch.empty(2, 3, 8, 8))
        assert groups == {"0": 8}

    def test_norms_without_affine_parameters(self) -> None:
        model = sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), nn.Conv2d(8, 6, 3),
            nn.InstanceNorm2d(6), nn.Conv2d(6, 4, 1), nn.GroupNorm(2, 4, affine=False),
            nn.Conv2d(4, 2, 1),
        )  # fmt: skip
        groups, _ = hold(model.eval(), rand(2, 3, 9, 9))
        assert {"0", "2"} <= set(widths(groups))


def hold_structure(model: nn.Module, inputs: Any) -> dict[str, int]:
    from rlprune.compaction import discover

    return widths(discover(model, inputs))
