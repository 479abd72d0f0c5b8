"""Merging is exact on scaled duplicates and refuses what does not scale."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

import rlprune
from rlprune.compaction import build
from rlprune.compensation import Merge, compensate
from rlprune.errors import ConfigError
from tests.compensation.planted import (
    HOMOGENEOUS,
    OTHERS,
    inputs,
    plant,
    randomise,
    without,
)

COPIES = ((1, 0, 0.5), (4, 3, 3.0))
REMOVED = {1, 4}


def check(
    model: nn.Module, x: Tensor, removed: dict[str, set[int]], method: Merge | None = None
) -> tuple[float, float]:
    """Largest output difference to the dense network: pruned, and pruned and merged."""
    groups = rlprune.discover(model, x[:1])
    plan = without(groups, removed)
    with torch.no_grad():
        dense = model(x)
        plain = build(groups, plan).eval()
        merged = compensate(groups, plan, build(groups, plan), method or Merge()).eval()
        scale = float(dense.abs().max())
        errors = [float((dense - m(x)).abs().max()) / scale for m in (plain, merged)]
    return errors[0], errors[1]


def linear_net(activation: nn.Module, norm: bool, bias: bool = True) -> nn.Sequential:
    layers = [nn.Linear(5, 6, bias=bias), *([nn.BatchNorm1d(6)] if norm else []), activation]
    return nn.Sequential(*layers, nn.Dropout(0.3), nn.Linear(6, 3))


def conv_net(activation: nn.Module, norm: bool, bias: bool) -> nn.Sequential:
    layers = [nn.Conv2d(3, 6, 3, padding=1, bias=bias), *([nn.BatchNorm2d(6)] if norm else [])]
    tail = [nn.MaxPool2d(2), nn.AvgPool2d(2, padding=1), nn.Flatten(), nn.Linear(6 * 9, 4)]
    return nn.Sequential(*layers, activation, *tail)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", HOMOGENEOUS)
@pytest.mark.parametrize("make", [linear_net, conv_net])
def test_scaled_duplicates_are_recovered(make, name: str, norm: bool):
    model = randomise(make(HOMOGENEOUS[name](), norm, True), seed=3)
    plant(model[0], COPIES, model[1] if norm else None)
    x = inputs(16, 5) if make is linear_net else inputs(4, 3, 8, 8)
    pruned, merged = check(model, x, {"0": REMOVED})
    assert merged < 1e-12
    assert pruned > 1e-3


def test_float32_within_1e_6():
    model = randomise(conv_net(nn.ReLU(), True, False), seed=1)
    plant(model[0], COPIES, model[1])
    assert check(model.float(), inputs(4, 3, 8, 8).float(), {"0": REMOVED})[1] < 1e-6


@pytest.mark.parametrize("name", OTHERS)
def test_other_activations_are_refused_with_the_reason(name: str, caplog):
    model = randomise(linear_net(OTHERS[name](), False))
    groups = rlprune.discover(model, inputs(1, 5))
    plan = without(groups, {"0": REMOVED})
    method = Merge()
    with caplog.at_level(logging.INFO, "rlprune.compensation.merge"):
        merged = compensate(groups, plan, build(groups, plan), method)
    plain = build(groups, plan)
    for key, tensor in plain.state_dict().items():
        assert torch.equal(tensor, merged.state_dict()[key])
    assert "in 1:" in method.left_out["0"]
    assert method.left_out["0"] in caplog.text


def test_a_negative_multiple_is_not_merged():
    model = randomise(linear_net(nn.ReLU(), False))
    with torch.no_grad():
        model[0].weight[1:] = -model[0].weight[:1] * torch.rand(5, 1, dtype=torch.float64)
        model[0].bias[1:] = -model[0].bias[:1] * 0.5
    groups = rlprune.discover(model, inputs(1, 5))
    mixing = Merge().mixing(groups, "0", torch.tensor([0]), torch.arange(1, 6))
    assert not mixing.any()


def test_the_scale_is_removed_over_kept():
    model = randomise(linear_net(nn.ReLU(), False))
    plant(model[0], COPIES)
    groups = rlprune.discover(model, inputs(1, 5))
    kept, removed = torch.tensor([0, 2, 3, 5]), torch.tensor([1, 4])
    mixing = Merge().mixing(groups, "0", kept, removed)
    expected = torch.zeros(4, 2, dtype=torch.float64)
    expected[0, 0], expected[2, 1] = 0.5, 3.0
    torch.testing.assert_close(mixing, expected)


class TwoConsumers(nn.Module):
    """One stem read by a convolution, a transposed one and, pooled, by a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.left = nn.Conv2d(6, 4, 3, stride=2, padding=1)
        self.right = nn.ConvTranspose2d(6, 4, 3, stride=2)
        self.linear = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        pooled = self.linear(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return self.left(x).mean((2, 3)) + self.right(x).mean((2, 3)) + pooled


class Concatenated(nn.Module):
    """Two stems side by side, twice, into one convolution; one of them at degree 2 elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 1)
        self.norm = nn.BatchNorm2d(6)
        self.mix, self.side = nn.Conv2d(18, 5, 3, padding=1), nn.Conv2d(6, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.relu(self.norm(self.a(x))), self.b(x).abs()
        return self.mix(torch.cat([a, b, a], 1)) + self.side(b * b)


class Residual(nn.Module):
    """A stream with two producers, a 1-D scale, and a block that reads and writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.hidden = nn.Conv2d(6, 5, 3, padding=1)
        self.back, self.norm2 = nn.Conv2d(5, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.gain = nn.Parameter(torch.ones(6, 1, 1))
        self.head = nn.Linear(6 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.gain * self.norm2(self.back(torch.relu(self.hidden(x)))))
        return self.head(x.permute(0, 2, 3, 1).flatten(1))


def test_every_consumer_absorbs():
    model = randomise(TwoConsumers())
    plant(model.stem, COPIES, model.norm)
    pruned, merged = check(model, inputs(4, 3, 7, 7), {"stem": REMOVED})
    assert merged < 1e-12 < pruned


def test_concatenated_consumers_absorb_at_their_degrees():
    model = randomise(Concatenated())
    plant(model.a, COPIES, model.norm)
    plant(model.b, ((0, 5, 2.0), (2, 3, 0.25)))
    pruned, merged = check(model, inputs(4, 3, 7, 7), {"a": REMOVED, "b": {0, 2}})
    assert merged < 1e-12 < pruned


def test_residual_sums_merge_when_all_producers_agree():
    model = randomise(Residual())
    plant(model.stem, COPIES, model.norm)
    with torch.no_grad():
        for i, j, _ in COPIES:
            model.gain[i] = model.gain[j]
    plant(model.back, COPIES, model.norm2)
    pruned, merged = check(model, inputs(4, 3, 4, 4), {"stem": REMOVED})
    assert merged < 1e-12 < pruned


def test_residual_units_that_agree_in_one_producer_only_are_not_taken_for_copies():
    model = randomise(Residual())
    plant(model.stem, COPIES, model.norm)
    groups = rlprune.discover(model, inputs(1, 3, 4, 4))
    kept, removed = torch.tensor([0, 2, 3, 5]), torch.tensor([1, 4])
    assert not Merge(threshold=0.99).mixing(groups, "stem", kept, removed).any()


def test_successive_groups_are_merged_together():
    model = nn.Sequential(
        nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.LeakyReLU(), nn.Linear(6, 3)
    )
    randomise(model)
    plant(model[0], COPIES)
    plant(model[2], COPIES)
    assert check(model, inputs(8, 5), {"0": REMOVED, "2": REMOVED})[1] < 1e-12


class Gated(nn.Module):
    """Squeeze and excitation, a depthwise convolution, a late bias: nothing to merge."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.stem, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
        if kind == "gate":
            self.part: nn.Module = nn.Conv2d(6, 6, 1)
        elif kind == "depthwise":
            self.part = nn.Conv2d(6, 6, 3, groups=6)
        elif kind == "late bias":
            self.late = nn.Parameter(torch.ones(6, 1, 1))
        else:
            self.part = nn.GroupNorm(3, 6) if kind == "group norm" else nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        if self.kind == "gate":
            x = x * torch.sigmoid(self.part(x.mean((2, 3), keepdim=True)))
        elif self.kind == "late bias":
            x = x + self.late
        else:
            x = self.part(x)
        return self.last(x)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("gate", "'sigmoid'"),
        ("depthwise", "filtered by itself"),
        ("late bias", "after an activation"),
        ("late norm", "after an activation"),
        ("group norm", "native_group_norm"),
    ],
)
def test_what_breaks_homogeneity_is_named(kind: str, reason: str):
    method = Merge()
    method.prepare(rlprune.discover(randomise(Gated(kind)), inputs(1, 3, 6, 6)))
    assert reason in method.left_out["stem"]


def test_scores_come_from_the_original_weights():
    model = randomise(linear_net(nn.ReLU(), False))
    plant(model[0], COPIES)
    x = inputs(8, 5)
    groups = rlprune.discover(model, x[:1])
    plan = without(groups, {"0": REMOVED})
    small = build(groups, plan)
    with torch.no_grad():
        small[0].weight.mul_(3.0)
    merged = compensate(groups, plan, small, "merge")
    reference = compensate(groups, plan, build(groups, plan), "merge")
    torch.testing.assert_close(merged[3].weight, reference[3].weight)


def test_wrong_options_are_named():
    with pytest.raises(ConfigError, match="threshold is 2"):
        Merge(threshold=2)
    with pytest.raises(ConfigError, match="lam is -1"):
        Merge(lam=-1)


def test_merge_in_one_call():
    model = randomise(conv_net(nn.ReLU(), True, False), seed=1)
    plant(model[0], ((1, 0, 0.5), (3, 2, 3.0), (5, 4, 2.0)), model[1])
    x = inputs(4, 3, 8, 8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scores = {"0": torch.tensor([2.0, 1.0, 2.0, 1.0, 2.0, 1.0])}
    small = rlprune.merge(model, x[:1], keep=0.5, importance=scores)
    assert small[0].out_channels == 3
    torch.testing.assert_close(small(x), model(x), rtol=1e-10, atol=1e-10)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
