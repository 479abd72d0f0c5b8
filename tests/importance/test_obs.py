"""The obs order equals elimination by brute force, and where it cannot be had it is l1."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from torch import Tensor, nn

from rlprune import importance
from rlprune.compaction import discover
from rlprune.errors import DataError
from rlprune.importance import ScoringData, obs
from rlprune.importance.obs import Reader, _output_weights, eliminate
from rlprune.linear.fits import prepare
from rlprune.structure import Groups


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stirred(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights and statistics from a generator of the test's own."""
    source = generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source) / 2)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=source)
                module.running_mean.normal_(0, 0.3, generator=source)
                module.running_var.uniform_(0.5, 1.5, generator=source)
    return model.eval()


def convolutions(norm: bool = False, bias: bool = True) -> nn.Module:
    layers = [nn.Conv2d(1, 7, 3), nn.BatchNorm2d(7) if norm else nn.Identity(), nn.ReLU()]
    layers += [nn.Conv2d(7, 4, 3, bias=bias), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 5)]
    return stirred(nn.Sequential(*layers))


def images(count: int = 64, *shape: int) -> Tensor:
    return torch.randn(count, *(shape or (1, 8, 8)), generator=generator(1))


def order_of(score: Tensor) -> list[int]:
    return score.argsort().tolist()


def brute_force(groups: Groups, name: str, data: Tensor) -> list[int]:
    """Refits by dense least squares for every unit that could go next."""
    scoring = ScoringData(groups, data)
    fits = prepare(groups, scoring.require("obs")).fits
    weights = _output_weights(groups, scoring)
    problems = []
    for part in groups.slices(groups[name]):
        if part.role == "in":
            fit = fits[part.tensor]
            matrix = fit.consumer.matrix(fit.consumer.weight, fit.consumer.module.bias)
            scale = weights[part.tensor]
            matrix = matrix * scale.repeat_interleave(len(matrix) // len(scale)).sqrt()[:, None]
            ridge = torch.full((len(fit.gram),), fit.ridge, dtype=torch.float64)
            ridge[-1] = 0 if fit.consumer.intercept else fit.ridge
            values, vectors = torch.linalg.eigh(fit.gram + ridge.diag())
            inputs = (vectors * values.clamp_min(0).sqrt()).T
            k = fit.consumer.per_channel
            problems.append((inputs, inputs @ matrix.T, part.index, k))
    width = groups[name].width
    order: list[int] = []
    while len(order) < width:
        errors = {}
        for unit in set(range(width)) - set(order):
            errors[unit] = 0.0
            for inputs, target, index, k in problems:
                gone = (index[[*order, unit]].flatten()[:, None] * k + torch.arange(k)).flatten()
                left = torch.ones(inputs.shape[1], dtype=torch.bool)
                left[gone] = False
                found = torch.linalg.lstsq(inputs[:, left], target).solution
                errors[unit] += float((inputs[:, left] @ found - target).square().sum())
        order.append(min(errors, key=lambda unit: errors[unit]))
    return order


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_the_order_is_that_of_elimination_by_brute_force(norm: bool, bias: bool) -> None:
    model, data = convolutions(norm, bias), images()
    groups = discover(model, data[:2])
    score = importance.scores(groups, "obs", data=data)
    assert sorted(g.width for g in groups.prunable) == [4, 7]
    for group in groups.prunable:
        assert sorted(score[group.name].tolist()) == list(range(1, group.width + 1))
        assert order_of(score[group.name])[:-1] == brute_force(groups, group.name, data)[:-1]


@pytest.mark.parametrize("waiting", [1, 4, 1000])
def test_removals_that_wait_and_go_together_change_nothing(
    waiting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("rlprune.importance.obs"), "_WAITING", waiting)
    source = generator()
    width, moments, weights, columns = 9, [], [], []
    for size in (1, 3):
        n = size * width + 1
        rows = torch.randn(200, n, dtype=torch.float64, generator=source)
        mixed = rows @ torch.randn(n, n, dtype=torch.float64, generator=source)
        moments.append(mixed.T @ mixed)
        weights.append(torch.randn(4, n, dtype=torch.float64, generator=source))
        columns.append(torch.randperm(n - 1, generator=source).reshape(width, size))
    order: list[int] = []
    while len(order) < width:
        errors = {}
        for unit in set(range(width)) - set(order):
            errors[unit] = 0.0
            for moment, weight, at in zip(moments, weights, columns, strict=True):
                gone = at[[*order, unit]].flatten()
                block = torch.linalg.inv(torch.linalg.inv(moment)[gone][:, gone])
                errors[unit] += float((weight[:, gone] @ block * weight[:, gone]).sum())
        order.append(min(errors, key=lambda unit: errors[unit]))
    found = eliminate(
        [
            Reader(weight.T @ weight, torch.linalg.inv(moment), at)
            for moment, weight, at in zip(moments, weights, columns, strict=True)
        ]
    )
    assert found == order


def test_of_two_equal_units_one_goes_first_and_the_other_stays() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5))
    stirred(model)
    with torch.no_grad():
        for copy, original in ((1, 0), (6, 3)):
            for tensor in (model[0].weight, model[0].bias):
                tensor[copy] = tensor[original]
        model[2].weight[:, [0, 1, 3, 6]] += 3
    groups = discover(model, torch.zeros(2, 6))
    (score,) = importance.scores(groups, "obs", data=images(200, 6)).values()
    first = set(order_of(score)[:2])
    assert first in ({0, 3}, {0, 6}, {1, 3}, {1, 6})
    (magnitude,) = importance.scores(groups, "l1").values()
    assert set(order_of(magnitude)[:2]) != first


def test_outputs_that_the_answer_does_not_feel_do_not_count() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 5))
    stirred(model)
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[100.0, 0], [0.0, 1.0], [0.0, 1.0]]))
        model[3].weight[:, 0] = 0
    groups = discover(model, torch.zeros(2, 4))
    group = next(g for g in groups.prunable if g.width == 2)
    data = ScoringData(groups, images(100, 4))
    assert order_of(obs(groups, group, data)) == [0, 1]
    data._once["obs outputs"] = {}
    assert order_of(obs(groups, group, data)) == [1, 0], "all outputs alike"


def test_units_with_several_positions_after_flattening() -> None:
    data = images(200, 1, 6, 6)
    model = stirred(nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 4)))
    groups = discover(model, data[:2])
    (name,) = (g.name for g in groups.prunable)
    assert next(p for p in groups.slices(groups[name]) if p.role == "in").index.shape == (5, 16)
    score = importance.scores(groups, "obs", data=data)[name]
    assert order_of(score)[:-1] == brute_force(groups, name, data)[:-1]


def test_same_result_twice_and_the_network_is_left_alone() -> None:
    model, data = convolutions(norm=True), images()
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    groups = discover(model, data[:2])
    first, second = (importance.scores(groups, "obs", data=data) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())


class Grouped(nn.Module):
    """One group of channels that only a grouped convolution reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 4, 3, padding=1, groups=2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.grouped(self.stem(x).relu()).relu().mean((2, 3)))


def test_what_least_squares_cannot_refit_is_ordered_by_l1() -> None:
    model = stirred(Grouped())
    groups = discover(model, images(2))
    score = importance.scores(groups, "obs", data=images())
    magnitude = importance.scores(groups, "l1")
    fits = prepare(groups, ScoringData(groups, images()).require("obs")).fits
    assert set(fits) == {"head.weight"}
    fallen = [g.name for g in groups.prunable if g.name.startswith("stem")]
    assert fallen
    for name in fallen:
        assert torch.equal(score[name], magnitude[name])


class Written(nn.Module):
    """Writes in place into a view of several, which has no derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x).relu())
        y.chunk(2, 1)[0].add_(x[:, :3])
        return y


def test_a_network_without_derivatives_is_ordered_with_all_outputs_alike(
    caplog: pytest.LogCaptureFixture,
) -> None:
    groups = discover(stirred(Written()), torch.zeros(2, 4))
    group = next(g for g in groups.prunable if g.width == 6)
    score = importance.scores(groups, "obs", data=images(64, 4))[group.name]
    assert sorted(score.tolist()) == [1, 2, 3, 4, 5, 6]
    assert "no derivatives" in caplog.text


def test_a_layer_that_is_never_excited_still_gets_an_order() -> None:
    model = stirred(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3, bias=False)))
    with torch.no_grad():
        model[0].bias.fill_(-1000)
    groups = discover(model, torch.zeros(2, 4))
    (score,) = importance.scores(groups, "obs", data=images(32, 4)).values()
    assert sorted(score.tolist()) == [1, 2, 3, 4, 5]


def test_without_calibration_data_the_criterion_says_what_to_do() -> None:
    groups = discover(convolutions(), images(2))
    with pytest.raises(DataError, match="'obs' needs calibration data"):
        importance.scores(groups, "obs")
