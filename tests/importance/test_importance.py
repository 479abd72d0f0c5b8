"""Criteria equal what is computed by hand, on groups of real networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from rlprune import importance
from rlprune.compaction import discover
from rlprune.errors import ConfigError, DataError, ScoreError
from rlprune.structure import Group, Groups


class Residual(nn.Module):
    """A small residual network on 8x8 images; its stem and its block share one group."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(6)
        self.conv1 = nn.Conv2d(6, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.stem(x)).relu()
        x = (x + self.conv2(self.conv1(x).relu())).relu()
        return self.head(x.mean((2, 3)))


def digits(count: int = 96) -> tuple[Tensor, Tensor]:
    data = load_digits()
    images = torch.tensor(data.images[:count], dtype=torch.float32)[:, None] / 16
    return images, torch.tensor(data.target[:count])


@pytest.fixture
def groups() -> Groups:
    torch.manual_seed(0)
    net = Residual()
    with torch.no_grad():
        net.bn.weight.uniform_(0.2, 2)
    return discover(net, torch.zeros(2, 1, 8, 8))


def share(score: Tensor) -> Tensor:
    return score / score.mean()


def names(groups: Groups) -> tuple[str, str]:
    residual, inner = sorted(groups.prunable, key=lambda group: group.width)
    assert (residual.width, inner.width) == (6, 8)
    return residual.name, inner.name


@pytest.mark.parametrize(("criterion", "order"), [("l1", 1), ("l2", 2)])
def test_norms_average_over_coupled_layers(groups: Groups, criterion: str, order: int) -> None:
    net = groups.model
    residual, inner = names(groups)
    found = importance.scores(groups, criterion)
    alone = net.conv1.weight.detach().flatten(1).norm(order, dim=1)
    stem = net.stem.weight.detach().flatten(1).norm(order, dim=1)
    block = net.conv2.weight.detach().flatten(1).norm(order, dim=1)
    assert torch.allclose(found[inner], share(alone), atol=1e-6)
    assert torch.allclose(found[residual], (share(stem) + share(block)) / 2, atol=1e-6)


def test_bn_scale_reads_the_normalisation_and_falls_back_to_l1(groups: Groups) -> None:
    residual, inner = names(groups)
    found = importance.scores(groups, "bn_scale")
    assert torch.allclose(found[residual], share(groups.model.bn.weight.detach().abs()))
    assert torch.equal(found[inner], importance.scores(groups, "l1")[inner])


def test_fpgm_is_the_sum_of_distances() -> None:
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]))
    (found,) = importance.scores(discover(net, torch.zeros(1, 2)), "fpgm").values()
    far = 18**0.5
    by_hand = torch.tensor([5 + 1, 5 + far, 1 + far])
    assert torch.allclose(found, share(by_hand))


def test_taylor_is_the_squared_product_of_weight_and_gradient() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1, bias=False))
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    with torch.no_grad():
        net[0].weight.copy_(weight)
        net[0].bias.copy_(torch.tensor([0.5, -1.0]))
        net[1].weight.copy_(torch.tensor([[2.0, -3.0]]))
    # The loss is the output itself, so the gradient of unit u is head[u] * (x, 1).
    inputs = torch.tensor([[1.0, -1.0], [2.0, 0.5]])
    batches = [(row[None], torch.zeros(1)) for row in inputs]
    (found,) = importance.scores(
        discover(net, torch.zeros(1, 2)), "taylor", data=batches, loss=lambda out, y: out.sum()
    ).values()
    head = torch.tensor([2.0, -3.0])
    by_hand = torch.zeros(2)
    for row in inputs:
        by_hand += ((weight * head[:, None] * row) ** 2).sum(1) / 2
        by_hand += (torch.tensor([0.5, -1.0]) * head) ** 2 / 2
    assert torch.allclose(found, by_hand)


def test_taylor_leaves_the_network_as_it_was(groups: Groups) -> None:
    before = {key: value.clone() for key, value in groups.model.state_dict().items()}
    importance.scores(groups, "taylor", data=digits())
    after = groups.model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert all(parameter.grad is None for parameter in groups.model.parameters())
    assert groups.model.training


def test_activation_is_the_mean_absolute_output(groups: Groups) -> None:
    images, labels = digits()
    _, inner = names(groups)
    found = importance.scores(groups, "activation", data=(images, labels))
    net = groups.model.eval()
    with torch.no_grad():
        hidden = functional.conv2d(
            net.bn(net.stem(images)).relu(), net.conv1.weight, net.conv1.bias, padding=1
        )
    assert torch.allclose(found[inner], share(hidden.abs().mean((0, 2, 3))), atol=1e-5)


def test_activation_is_the_same_in_any_batching(groups: Groups) -> None:
    images, labels = digits()
    whole = importance.scores(groups, "activation", data=(images, labels))
    loader = [(images[start : start + 40], None) for start in range(0, len(images), 40)]
    parts = importance.scores(groups, "activation", data=loader)
    assert all(torch.allclose(whole[name], parts[name], atol=1e-6) for name in whole)


def test_random_follows_its_generator(groups: Groups) -> None:
    def drawn(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.cat(list(importance.scores(groups, "random", generator=generator).values()))

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize("criterion", sorted(importance.CRITERIA))
def test_every_criterion_scores_every_prunable_unit(groups: Groups, criterion: str) -> None:
    found = importance.scores(groups, criterion, data=digits())
    assert list(found) == [group.name for group in groups.prunable]
    for group in groups.prunable:
        assert found[group.name].shape == (group.width,)
        assert found[group.name].dtype == torch.float32
        assert (found[group.name] >= 0).all()


def backwards(groups: Groups, group: Group, data: importance.ScoringData) -> Tensor:
    """Prefers the first units."""
    return torch.arange(group.width, 0, -1)


def test_a_users_criterion_by_itself_and_by_its_path(groups: Groups) -> None:
    by_itself = importance.scores(groups, backwards)
    by_path = importance.scores(groups, f"{__name__}.backwards")
    for group in groups.prunable:
        assert by_itself[group.name].tolist() == list(range(group.width, 0, -1))
        assert torch.equal(by_itself[group.name], by_path[group.name])


def test_wrong_requests_are_explained(groups: Groups) -> None:
    with pytest.raises(ConfigError, match=r"'size' is unknown; .*known are l1, l2"):
        importance.scores(groups, "size")
    with pytest.raises(DataError, match="'taylor' needs calibration data"):
        importance.scores(groups, "taylor")
    with pytest.raises(DataError, match="'taylor' needs labelled calibration data"):
        importance.scores(groups, "taylor", data=digits()[0])
    with pytest.raises(ScoreError, match=r"'<lambda>' returned \(2,\) for group"):
        importance.scores(groups, lambda g, group, data: torch.zeros(2))
    with pytest.raises(ScoreError, match="non-finite"):
        importance.scores(groups, lambda g, group, data: torch.full((group.width,), torch.nan))


def test_every_shipped_configuration_names_a_criterion() -> None:
    folder = Path(__file__).parents[2] / "configs" / "importance"
    files = sorted(folder.glob("*.yaml"))
    assert {file.stem for file in files} == {*importance.CRITERIA, "auto"}
    for file in files:
        assert yaml.safe_load(file.read_text())["criterion"] == file.stem
