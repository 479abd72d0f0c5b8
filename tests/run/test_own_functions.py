"""Functions and networks of the user's that change what they are given, or their own data."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rlprune
from rlprune.budgets import count_params
from rlprune.errors import BudgetError, ScoreError
from rlprune.problem import DataQuality


def quick(dense: nn.Module, x: Tensor, **options: Any) -> rlprune.PruneResult:
    return rlprune.prune(
        dense, x, **{"budgets": {"params": 0.7}, "agent": "random", "evaluations": 4, **options},
        finetune=None, latency={"repeats": 2}, progress=False,
    )  # fmt: skip


def test_a_score_gets_a_network_of_its_own(
    dense: nn.Module, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    x, y = settings["data"].holdout

    def score(network: nn.Module) -> float:
        return float((network(x).argmax(1) == y).float().mean())

    def spoiling(network: nn.Module) -> float:
        value = score(network)
        network.train()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        return value

    clean = quick(dense, x[:1], score=score)
    with caplog.at_level(logging.WARNING):
        spoilt = quick(dense, x[:1], score=spoiling)
    assert "score changes the network that it is given (stem" in caplog.text
    assert [row["quality"] for row in spoilt.history] == [row["quality"] for row in clean.history]
    assert spoilt.plan == clean.plan
    assert score(spoilt.model) == score(clean.model)  # type: ignore[arg-type]


def test_a_score_that_overwrites_its_data_is_told(dense: nn.Module) -> None:
    images = rlprune.data.load("digits").holdout[0].clone()

    def score(network: nn.Module) -> float:
        return -float(network(images.mul_(0.9)).square().mean())

    with pytest.raises(ScoreError, match=r"score overwrites its own data \(closure\.images"):
        quick(dense, images[:1], score=score)


def test_a_budget_gets_inputs_of_its_own_and_keeps_its_table(
    dense: nn.Module, settings: dict[str, Any]
) -> None:
    x = settings["data"].example_inputs
    before, table = x.clone(), torch.ones(3)

    def zeroing(network: nn.Module, inputs: Tensor) -> float:
        inputs.zero_()
        return count_params(network)

    def wearing(network: nn.Module, inputs: Tensor) -> float:
        return count_params(network) * float(table.mul_(0.5)[0])

    data = settings["data"]
    result = quick(dense, x, data=data, budgets={"own": rlprune.Budget(zeroing, "70%")})
    assert torch.equal(x, before)
    assert result.costs["own"] == count_params(result.model)
    with pytest.raises(BudgetError, match=r"'own': its function overwrites its own data .*table"):
        quick(dense, x, data=data, budgets={"own": rlprune.Budget(wearing, "70%")})


class Centred(nn.Module):
    """Begins in place, as networks do that centre their input."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return self.network(x.sub_(0.25).mul_(2.0))


def test_a_network_that_works_in_place_leaves_the_samples_alone(
    dense: nn.Module, settings: dict[str, Any]
) -> None:
    data, network = rlprune.data.load("digits"), Centred(dense)
    kept = [part.clone() for part in (data.holdout[0], data.calibration(64)[0])]
    quality = DataQuality(network, data.holdout)
    assert quality(network) == quality(network)
    result = quick(network, data.example_inputs.clone(), data=data)
    assert torch.equal(data.holdout[0], kept[0])
    assert torch.equal(data.calibration(64)[0], kept[1])
    again = quick(network, data.example_inputs.clone(), data=data)
    assert [row["quality"] for row in again.history] == [row["quality"] for row in result.history]
