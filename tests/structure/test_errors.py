"""What cannot be done ends in one clear message that names the module and the op."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

from rlprune.compaction import discover
from rlprune.errors import RlpruneError, StructureError


class Baked(nn.Module):
    """A forward pass with a size written into it."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        self.head = nn.Linear(288, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(flat(self.features(x)))


def flat(x: Tensor) -> Tensor:
    """Told a size outside of any module's code."""
    return x.view(-1, 288)


class Outer(nn.Module):
    """Holds a `Baked` deeper down."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Baked()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


IMAGE = torch.zeros(2, 3, 8, 8)


def test_a_size_written_into_a_forward() -> None:
    groups = discover(Outer(), IMAGE)
    assert not groups["inner.features.0"].prunable
    assert "view in inner: " in groups["inner.features.0"].reason
    assert "288" in groups["inner.features.0"].reason


def test_excluding_the_group_is_the_cure() -> None:
    groups = discover(Baked(), IMAGE, exclude=["features.*"])
    assert groups["features.0"].reason == "excluded by 'features.*'"
    assert not groups.prunable


def test_inputs_that_do_not_fit() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3))
    with pytest.raises(StructureError, match=r"in 0: RuntimeError: .*expected input"):
        discover(model, torch.zeros(2, 4, 8, 8))
    with pytest.raises(StructureError, match="missing 1 required positional argument"):
        discover(nn.Bilinear(2, 2, 2), torch.zeros(2, 2))
    with pytest.raises(StructureError, match="hold no tensor"):
        discover(model, {"size": 3})
    with pytest.raises(RlpruneError, match="empty batch"):
        discover(model, torch.zeros(0, 3, 8, 8))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_scripted_network() -> None:
    with pytest.raises(StructureError, match=r"compiled by torch\.jit"):
        discover(torch.jit.script(nn.Linear(2, 2)), torch.zeros(1, 2))


def test_a_network_that_cannot_be_copied() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.lock = threading.Lock()
    with pytest.raises(StructureError, match=r"cannot be copied .*locks"):
        discover(model, torch.zeros(1, 2))


def test_an_error_inside_the_forward_pass_names_the_module() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError("weights of the day")

    with pytest.raises(StructureError, match=r"failed on the example inputs in 1: KeyError"):
        discover(nn.Sequential(nn.Linear(2, 2), Broken()), torch.zeros(1, 2))


def test_every_frozen_group_says_why() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.n, self.b = nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 6)
            self.c, self.o = nn.Linear(6, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.c(self.b(self.n(self.a(x))).softmax(-1))
            return self.o(torch.cdist(x, x.flip(1)) @ x)

    groups = discover(Frozen(), torch.randn(2, 3))
    assert "in n: its statistics mix all units" in groups["a"].reason
    assert "softmax in the model's own forward" in groups["b"].reason
    assert "no rule for this op" in groups["c"].reason
    assert groups["o"].reason == "it is an output of the network"
    table = groups.table()
    assert all(g.reason in table for g in groups)
    assert "plane" not in table
