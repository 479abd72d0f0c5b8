"""Ways around blocks: exact at both ends, foldable, prunable afterwards, learned under a budget."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import rlprune
from rlprune.compaction import build, masked_copy
from rlprune.errors import ConfigError, InfeasibleBudgetError
from rlprune.gates import bypassed, folded, shorten
from rlprune.models.small import ConvBlock
from rlprune.plan import Plan
from rlprune.tasks import Classification
from tests.problem.problems import digits


class Plain(nn.Module):
    """Convolutions one after the other: the same size, more channels and half the size, fewer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBlock(1, 8)
        self.same = nn.Sequential(ConvBlock(8, 8), ConvBlock(8, 8))
        self.down = ConvBlock(8, 16, stride=2)
        self.fewer = ConvBlock(16, 12)
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fewer(self.down(self.same(self.stem(x))))
        return self.fc(x.mean((2, 3)))


BLOCKS = ("same", "down", "fewer")


@pytest.fixture
def plain() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Plain().double().eval()


def test_both_ends_are_exact_and_what_is_folded_is_pruned(plain: nn.Module) -> None:
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    network, ways = bypassed(plain, x, BLOCKS)
    with torch.no_grad():
        assert torch.equal(network(x), plain(x))
        for way in ways.values():
            way.gate = torch.ones(())
        assert torch.equal(network(x), plain(x))
        assert torch.equal(folded(network)(x), plain(x))
        for path in BLOCKS:
            ways[path].gate = torch.zeros(())
            short = folded(network).eval()
            torch.testing.assert_close(short(x), network(x), rtol=0, atol=0)
            groups = rlprune.discover(short, x)
            plan = Plan.uniform(groups, 0.5)
            small, masked = build(groups, plan), masked_copy(groups, plan)
            torch.testing.assert_close(small(x), masked(x), rtol=1e-10, atol=1e-10)
            sizes = [sum(p.numel() for p in net.parameters()) for net in (small, short)]
            assert sizes[0] < sizes[1] or path == "fewer", "a cut leaves its channels whole"
    assert not any("Bypass" in type(m).__name__ for m in short.modules())


def test_gates_are_learned_and_the_budget_is_met() -> None:
    images, labels = digits()
    samples = [(images[at : at + 64], labels[at : at + 64]) for at in range(0, 384, 64)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Plain()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = shorten(
        model, images[:2], BLOCKS, budgets={"macs": 0.6}, data=samples, task=Classification(),
        steps=12, learning_rate=0.3, labels=1.0, progress=False,
    )  # fmt: skip
    assert found.costs["macs"] <= 0.6 * rlprune.budgets.count_macs(model, images[:2])
    assert "same" in found.bypassed
    assert found.network(images[:2]).shape == (2, 10)
    assert all(torch.equal(model.state_dict()[n], t) for n, t in before.items())
    options = {"data": samples, "task": Classification(), "steps": 1, "progress": False}
    with pytest.raises(InfeasibleBudgetError, match="name more blocks"):
        shorten(model, images[:2], ["down"], budgets={"macs": 0.1}, **options)


def test_what_cannot_be_gone_around_is_named() -> None:
    x = torch.rand(1, 1, 8, 8)
    with pytest.raises(ConfigError, match="no module of this path"):
        bypassed(Plain(), x, ["nothing"])
    with pytest.raises(ConfigError, match="lies in another"):
        bypassed(Plain(), x, ["same", "same.0"])
    model = nn.Sequential()
    model.add_module("head", nn.Flatten())
    with pytest.raises(ConfigError, match="'head' cannot be gone around"):
        bypassed(model, x, ["head"])
