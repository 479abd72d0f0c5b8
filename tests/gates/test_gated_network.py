"""Gates at 1 are the dense network, binary gates the masked and the compacted one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rlprune.compaction import discover
from rlprune.compaction.build import build, mask_in_place
from rlprune.compensation import batch_statistics
from rlprune.gates import KINDS, GatedNetwork
from rlprune.inputs import call
from rlprune.models import create
from rlprune.plan import Plan
from rlprune.structure import Groups
from rlprune.structure.twin import copied
from rlprune.zoo import transformers_tiny
from tests.structure.random_networks import random_network, random_plan


def answers(model: nn.Module, inputs: Any) -> list[Tensor]:
    with torch.no_grad():
        leaves = tree_leaves(call(model.eval(), copy.deepcopy(inputs)))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def check(groups: Groups, inputs: Any, plan: Plan) -> None:
    """Open gates are the dense network, the plan's gates its masked and compacted ones."""
    depth = bool(groups.branches)
    gated = GatedNetwork(groups, depth=depth)
    dense = answers(copied(groups.model, {}), inputs)
    opened = answers(gated.set(torch.ones(gated.gates, dtype=torch.float64)), inputs)
    for a, b in zip(dense, opened, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
    closed = answers(gated.set(gated.values(plan).double()), inputs)
    masked = copied(groups.model, {})
    mask_in_place(groups, masked, plan)
    small = build(groups, plan)
    assert any(not torch.equal(a, b) for a, b in zip(dense, closed, strict=True)) or not depth
    folded = copied(groups.model, {})
    folded.load_state_dict(gated.folded())
    for other, tolerance in ((masked, 1e-12), (folded, 1e-12), (small, 1e-10)):
        for a, b in zip(closed, answers(other, inputs), strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("seed", range(3, 11))
def test_random_networks_are_gated_exactly(seed: int) -> None:
    network = random_network(seed)
    groups = discover(network.model, network.inputs)
    plan = random_plan(groups, seed)
    check(groups, network.inputs, plan)
    if groups.branches:
        check(groups, network.inputs, plan.drop(groups, [next(iter(groups.branches))]))


def resnet() -> tuple[nn.Module, Any]:
    model = create("digits_cnn", num_classes=10)
    return model, torch.rand(3, 1, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize("name", ["resnet", "llama"])
def test_blocks_and_sub_layers_are_gated_exactly(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, inputs = resnet() if name == "resnet" else transformers_tiny.build(name)
        for parameter in model.double().eval().parameters():
            nn.init.normal_(parameter, std=0.3)
    groups = discover(model, inputs)
    assert groups.branches
    plan = random_plan(groups, 4)
    check(groups, inputs, plan.drop(groups, [list(groups.branches)[-1]]))


def test_training_gates_leaves_the_network_alone() -> None:
    network = random_network(3)
    groups = discover(network.model, network.inputs)
    before = {k: v.clone() for k, v in groups.model.state_dict().items()}
    for trained in (False, True):
        gated = GatedNetwork(groups, trained=trained)
        values = torch.full((gated.gates,), 0.5, dtype=torch.float64, requires_grad=True)
        leaves = tree_leaves(call(gated.set(values), network.inputs))
        sum(leaf.square().sum() for leaf in leaves if isinstance(leaf, Tensor)).backward()
        assert values.grad is not None
        assert values.grad.abs().max() > 0
        assert any(p.grad is not None for p in gated.network.parameters()) is trained
        with torch.no_grad():
            for parameter in gated.network.parameters():
                if trained:
                    parameter.add_(1.0)
    assert all(p.grad is None for p in groups.model.parameters())
    after = groups.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"random"}))
def test_every_kind_closes_what_its_gradient_asks_for(kind: str) -> None:
    blocks = torch.tensor([0] * 6 + [1] * 4 + [2])
    gates = KINDS[kind](blocks, torch.zeros(11))
    wanted = torch.tensor([1, 0, 1, 0, 1, 0, 1, 1, 0, 0, 0]).float()
    optimizer = torch.optim.Adam(gates.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(0)
    for step in range(200):
        gates.anneal(step / 200)
        values = gates.sample(generator)
        assert ((values >= -1e-6) & (values <= 1 + 1e-6)).all()
        loss = ((values - wanted) ** 2).sum() + 0.2 * (gates.expected() * (1 - wanted)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scores = gates.scores()
    for block in range(2):
        inside = blocks == block
        assert scores[inside & (wanted == 1)].min() > scores[inside & (wanted == 0)].max()
        assert gates.expected()[inside].mean().item() == pytest.approx(0.5, abs=0.2)
    assert gates.expected()[-1] < 0.4


def test_random_gates_learn_how_many_and_not_which() -> None:
    blocks = torch.tensor([0] * 8)
    gates = KINDS["random"](blocks, torch.linspace(-1, 1, 8))
    before = gates.scores().clone()
    optimizer = torch.optim.Adam(gates.parameters(), lr=0.1)
    for _ in range(50):
        optimizer.zero_grad()
        gates.expected().sum().backward()
        optimizer.step()
    assert torch.equal(gates.scores(), before)
    assert not torch.equal(before.argsort(), torch.arange(8))
    assert gates.sample(torch.Generator()).sum() < 8


def test_normalisation_cancels_gates_that_stand_before_it() -> None:
    model = create("digits_cnn", num_classes=10, seed=0).double()
    inputs = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    groups = discover(model, inputs)
    inner = next(group for group in groups.prunable if group.name == "block1.conv1")
    at = [group.name for group in groups.prunable].index(inner.name)
    start = sum(group.width for group in groups.prunable[:at])
    moved = {}
    for place in ("reads", "writes"):
        gated = GatedNetwork(groups, place=place)
        values = torch.ones(gated.gates, dtype=torch.float64)
        with torch.no_grad(), batch_statistics(gated.network):
            whole = gated.set(values)(inputs)
            values[start : start + inner.width] = torch.linspace(0.3, 1, inner.width).double()
            moved[place] = float((gated.set(values)(inputs) - whole).norm() / whole.norm())
    assert moved["writes"] < 0.02 * moved["reads"]
