"""The oracle on the spellings of public networks: every block, several plans and lengths."""

from __future__ import annotations

from random import Random

import pytest
import torch
from torch import Tensor, nn

from rlprune.compaction import Workspace, build, discover
from rlprune.compaction.difference import difference
from rlprune.compaction.plans import equal_plan, narrow_plan
from rlprune.compaction.verify import masked_copy
from tests.structure.idiom_blocks import BLOCKS
from tests.structure.random_networks import _stir, random_plan
from tests.structure.sequence_blocks import Block
from tests.structure.test_oracle import check

LENGTH, FEATURES, SEEDS = 5, 4, range(2)


class Around(nn.Module):
    """A stem, one block beside a shortcut, a head."""

    def __init__(self, rng: Random, block: type[Block]) -> None:
        super().__init__()
        width = rng.randint(5, 7)
        self.stem, self.block = nn.Linear(FEATURES, width), block(rng, LENGTH, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        return self.head(x + self.block(x))


def network(block: type[Block], seed: int) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Around(Random(seed), block).double()
        _stir(model)
        return model, torch.randn(2, LENGTH, FEATURES, dtype=torch.float64)


@pytest.mark.parametrize("block", BLOCKS)
def test_law_1(block: type[Block]) -> None:
    inside = 0
    for seed in SEEDS:
        groups = discover(*network(block, seed))
        workspace = Workspace(groups)
        plans = [equal_plan(groups), *(narrow_plan(groups, half=k) for k in (0, 1))]
        for plan in (random_plan(groups, seed), *plans):
            check(groups, workspace, plan)
            masked, small = masked_copy(groups, plan), build(groups, plan)
            for shape in ((1, 2), (3, 9)):
                other = torch.ones(*shape, FEATURES, dtype=torch.float64).cumsum(1).tanh()
                assert difference(masked, small, other).agrees
        inside += sum(g.name.startswith("block.") for g in groups.prunable)
    assert inside > 0
