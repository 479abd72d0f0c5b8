"""Bias compensation restores mean answers, and little data is enough for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlprune import Plan, discover
from rlprune.compaction import build
from rlprune.compensation import BiasCompensation, compensate
from tests.compensation.planted import generator, randomise


class Mixed(nn.Module):
    """A convolution with borders, a strided one without a bias, and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.second = nn.Conv2d(12, 10, 3, stride=2, padding=1)
        self.third = nn.Conv2d(10, 8, 1, bias=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu()).relu()
        return self.head(self.third(x).sigmoid().mean((2, 3)))


def images(count: int, seed: int = 5) -> Tensor:
    return torch.randn(count, 3, 9, 9, generator=generator(seed)).double()


def cut(*methods: Any, calibration: Tensor | None = None) -> tuple[nn.Module, nn.Module, Plan]:
    model = randomise(Mixed()).eval()
    groups = discover(model, images(2))
    plan = Plan.uniform(groups, 0.5)
    return model, compensate(groups, plan, build(groups, plan).eval(), methods, calibration), plan


def test_mean_answers_to_dense_inputs_are_those_of_the_dense_layers() -> None:
    x = images(20)
    method = BiasCompensation()
    model, small, plan = cut(method, calibration=x)
    with torch.no_grad():
        inputs = model.first(x).relu()
        wanted = model.second(inputs)[:, list(plan.keep["second"])].mean((0, 2, 3))
        found = small.second(inputs[:, list(plan.keep["first"])]).mean((0, 2, 3))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    assert method.left_out == {"third.weight": "it has no bias"}
    assert small.third.bias is None


def test_layers_without_a_bias_are_given_one_where_asked() -> None:
    x = images(20)
    method = BiasCompensation(create=True)
    model, small, plan = cut(method, calibration=x)
    with torch.no_grad():
        inputs = model.second(model.first(x).relu()).relu()
        wanted = model.third(inputs)[:, list(plan.keep["third"])].mean((0, 2, 3))
        found = small.third(inputs[:, list(plan.keep["second"])]).mean((0, 2, 3))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    assert not method.left_out
    assert small.third.bias.requires_grad


def test_four_samples_help() -> None:
    x, unseen = images(4), images(200, seed=8)

    def error(*methods: Any) -> float:
        model, small, _ = cut(*methods, calibration=x)
        with torch.no_grad():
            return float((small(unseen) - model(unseen)).square().mean())

    assert error(BiasCompensation(create=True)) < 0.8 * error()


def test_padding_does_not_count() -> None:
    transformers_tiny = pytest.importorskip("rlprune.zoo.transformers_tiny")
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    network, inputs = transformers_tiny.build("bert")
    groups = discover(network.eval(), inputs)
    plan = Plan.uniform(groups, 0.5)
    ids = torch.randint(2, 99, (8, 12), generator=generator(3))
    mask = torch.zeros_like(ids)
    mask[:, :7] = 1

    def biases(**batch: Tensor) -> list[Tensor]:
        small = build(groups, plan).eval()
        compensate(groups, plan, small, "bias", [(batch, None)])
        return [v for k, v in small.state_dict().items() if k.endswith("output.dense.bias")]

    padded = biases(input_ids=ids, attention_mask=mask)
    plain = biases(input_ids=ids[:, :7], attention_mask=mask[:, :7])
    blind = biases(input_ids=ids)
    assert len(padded) == 4
    for found, wanted, other in zip(padded, plain, blind, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(found, other, rtol=1e-3, atol=1e-5)
