"""The oracle on ops that few networks use: every block in several random networks."""

from __future__ import annotations

from random import Random

import pytest
import torch
from torch import Tensor, nn

from rlprune.compaction import Workspace, discover
from tests.structure.image_layers import Block, activation
from tests.structure.op_blocks import BLOCKS, SIDE
from tests.structure.random_networks import _stir, random_plan
from tests.structure.test_oracle import check

SEEDS = range(5)


class Around(nn.Module):
    """A stem, one block, a layer that reads it, a head."""

    def __init__(self, rng: Random, block: type[Block]) -> None:
        super().__init__()
        width = rng.randint(3, 6)
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), activation(rng, width)
        )
        self.block = block(rng, 2, width)
        self.reader = nn.Conv2d(self.block.out, 5, 1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.reader(self.block(self.stem(x)))).mean((2, 3)))


def network(block: type[Block], seed: int) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Around(Random(seed), block).double()
        _stir(model)
        return model, torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64)


@pytest.mark.parametrize("block", BLOCKS)
def test_law_1(block: type[Block]) -> None:
    inner = 0
    for seed in SEEDS:
        groups = discover(*network(block, seed))
        reasons = [g.reason for g in groups if not g.prunable]
        assert not [r for r in reasons if "no rule" in r or "cannot follow" in r], reasons
        workspace = Workspace(groups)
        for k in range(2):
            check(groups, workspace, random_plan(groups, 2 * seed + k))
        inner += sum(g.name != "reader" for g in groups.prunable)
    assert inner >= len(SEEDS) - 2
