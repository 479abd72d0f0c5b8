"""A network that cannot be cut is refused before a search, not after it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import rlprune
from rlprune.errors import StructureError


class WrittenSize(nn.Module):
    """Its forward names the number of features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3), nn.Linear(8 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(flat(self.conv(x).relu()))


def flat(x: Tensor) -> Tensor:
    """Told a size outside of any module's code."""
    return x.view(-1, 288)


def test_a_size_written_into_the_only_layer_is_refused_before_anything_is_scored() -> None:
    scored: list[nn.Module] = []

    def score(model: nn.Module) -> float:
        scored.append(model)
        return 0.0

    with pytest.raises(StructureError, match=r"conv: view in the model's own forward: .*288"):
        rlprune.prune(
            WrittenSize(),
            torch.zeros(2, 1, 8, 8),
            score=score,
            budgets={"macs": 0.5},
            agent="random",
            evaluations=3,
            progress=False,
        )
    assert not scored
