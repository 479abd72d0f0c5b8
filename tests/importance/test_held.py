"""Criteria by what units hold, and merging by activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import rlprune
from rlprune.compensation import ClusterMerge
from rlprune.errors import ConfigError, DataError
from rlprune.importance import scores
from rlprune.importance.held import separation
from rlprune.plan import Plan
from rlprune.zoo.transformers_tiny import build


def digits() -> tuple[Tensor, Tensor]:
    found = load_digits()
    return torch.tensor(found.data / 16).double(), torch.tensor(found.target)


def network(bias: bool = True) -> nn.Sequential:
    """Trained for a moment; units 3, 9, 11 are positive multiples of 2, 8, 10; 7 and more dead."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 12, bias=bias), nn.Tanh(), nn.Linear(12, 10)
    ).double()
    x, y = digits()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        for copied, scale in ((2, 2.0), (8, 0.5), (10, 3.0)):
            model[0].weight[copied + 1] = scale * model[0].weight[copied]
            model[0].bias[copied + 1] = scale * model[0].bias[copied]
        model[0].weight[7], model[0].bias[7] = 0.0, -1.0
    return model.eval()


@pytest.mark.parametrize("bias", [True, False])
def test_what_another_unit_says_goes_first_and_costs_nothing(bias: bool) -> None:
    model, (x, _) = network(bias), digits()
    groups = rlprune.discover(model, x[:2])
    first = groups.prunable[0]
    dead = torch.nonzero(model[1](model[0](x)).var(0) == 0)[:, 0].tolist()
    assert 7 in dead
    free = len(dead) + 3
    order = scores(groups, "redundancy", data=x)[first.name].argsort()[:free].tolist()
    assert set(dead) < set(order)
    assert all(len({a, a + 1} & set(order)) == 1 for a in (2, 8, 10))
    plan = Plan.from_widths(groups, {first.name: 16 - free}, scores(groups, "redundancy", data=x))
    found = rlprune.compact(model, x[:2], plan, compensation="cluster", calibration=x)
    torch.testing.assert_close(found(x), model(x), rtol=1e-9, atol=1e-9)
    bare = rlprune.compact(model, x[:2], plan)
    assert not torch.allclose(bare(x), model(x), atol=1e-2)


def test_the_partner_and_its_share_are_the_best_of_all() -> None:
    """The first unit to go is the one whose best single-partner fit changes the layer least."""
    model, (x, _) = network(), digits()
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(16, 64, generator=torch.Generator().manual_seed(1)))
        held = model[1](model[0](x))
    weight = model[2].weight.detach()
    errors = np.full((16, 16), np.inf)
    for i in range(16):
        for j in set(range(16)) - {i}:
            design = torch.stack([held[:, j], torch.ones(len(x))], 1)
            fit = torch.linalg.lstsq(design, held[:, i]).solution
            gap = held[:, i] - design @ fit
            errors[i, j] = float((gap[:, None] * weight[:, i]).square().sum())
    groups = rlprune.discover(model, x[:2])
    name = groups.prunable[0].name
    score = scores(groups, "redundancy", data=x)[name]
    assert sorted(score.tolist()) == list(range(1, 17))
    assert int(score.argmin()) == int(errors.min(1).argmin())
    units = [u for u in range(16) if u != int(score.argmin())]
    plan = Plan({**Plan.dense_plan(groups).keep, name: tuple(units)}, Plan.dense_plan(groups).dense)
    found = rlprune.compact(model, x[:2], plan, compensation="cluster", calibration=x)
    left = (found[:3](x) - model[2](held)).square().sum().detach()
    assert float(left) == pytest.approx(errors.min(), rel=1e-6)


def test_merging_helps_on_convolutions_and_transformers() -> None:
    torch.manual_seed(0)
    model = rlprune.models.create("digits_cnn").eval()
    x = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:400, None]
    cases: list[tuple[nn.Module, Any]] = [(model, x)]
    for kind in ("gpt2", "llama"):
        network, _ = build(kind)
        cases.append((network.eval(), [{"input_ids": torch.randint(0, 99, (16, 20))}] * 2))
    for dense, data in cases:
        inputs = data[:2] if isinstance(data, Tensor) else data[0]
        groups = rlprune.discover(dense, inputs)

        def call(module: nn.Module, inputs: Any = inputs, data: Any = data) -> Tensor:
            with torch.no_grad():
                out = module(x) if isinstance(data, Tensor) else module(**inputs).logits
            return torch.as_tensor(out)

        order = scores(groups, "redundancy", data=data)
        for name, score in order.items():
            assert sorted(score.tolist()) == list(range(1, groups[name].width + 1))
        plan = Plan.uniform(groups, 0.5, order)
        gaps = []
        for method in (None, "cluster", ["cluster", "least_squares"]):
            small = rlprune.compact(dense, inputs, plan, compensation=method, calibration=data)
            gaps.append(float((call(small) - call(dense)).square().mean()))
        assert gaps[1] < gaps[0]
        assert gaps[2] < gaps[0]


def test_memory_is_what_a_unit_writes() -> None:
    model, (x, _) = network(), digits()
    groups = rlprune.discover(model, x[:2])
    name = groups.prunable[0].name
    held = model[1](model[0](x))
    wrote = held.square().mean(0).sqrt() * model[2].weight.norm(dim=0)
    found = scores(groups, "memory", data=x)[name].double()
    torch.testing.assert_close(found / found.mean(), wrote / wrote.mean(), rtol=1e-5, atol=1e-6)


def test_concept_is_the_distance_of_class_means() -> None:
    model, (x, y) = network(), digits()
    groups = rlprune.discover(model, x[:2])
    name = groups.prunable[0].name
    held = model[1](model[0](x)).detach()
    means = torch.stack([held[y == c].mean(0) for c in range(10)])
    pairs = (means[:, None] - means[None]).abs().sum((0, 1)) / 2
    expected = pairs / held.std(0, correction=0).clamp_min(1e-6)
    found = scores(groups, "concept", data=(x, y))[name].double()
    torch.testing.assert_close(
        found / found.mean(), expected / expected.mean(), rtol=1e-4, atol=1e-6
    )
    assert separation(means.numpy()).shape == (16,)
    with pytest.raises(DataError, match="labelled"):
        scores(groups, "concept", data=x)
    with pytest.raises(DataError, match="two classes"):
        scores(groups, "concept", data=(x, torch.zeros_like(y)))


def test_concepts_of_tokens_leave_padding_out() -> None:
    torch.manual_seed(0)
    model, _ = build("gpt2")
    ids = torch.randint(0, 99, (6, 12))
    mask = torch.ones_like(ids)
    mask[:, 9:] = 0
    labels = ids % 3
    batch = {"input_ids": ids, "attention_mask": mask}
    groups = rlprune.discover(model.eval(), batch)
    found = scores(groups, "concept", data=[(batch, labels)])
    other = labels.masked_fill(mask == 0, 7)
    again = scores(groups, "concept", data=[(batch, other)])
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(ConfigError, match="threshold is 2"):
        ClusterMerge(2)
    model, (x, _) = network(), digits()
    groups = rlprune.discover(model, x[:2])
    with pytest.raises(DataError, match="cluster"):
        rlprune.compact(model, x[:2], Plan.uniform(groups, 0.5), compensation="cluster")
    with pytest.raises(DataError, match="redundancy"):
        scores(groups, "redundancy")
