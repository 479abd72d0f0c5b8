"""What the compacted network is: the same class, a plain module, everything still works on it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rlprune
from rlprune.compaction import Workspace, build, discover
from rlprune.compaction.difference import difference
from rlprune.compaction.verify import masked_copy
from rlprune.errors import PlanError
from rlprune.plan import Plan
from rlprune.structure import Groups


class Residual(nn.Module):
    """A convolution, a residual block, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.a, self.b = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.b(F.relu(self.a(x)))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def inputs() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> Residual:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Residual()
    network.norm.running_mean.uniform_(-0.2, 0.2)
    network.norm.eval()
    network.stem.weight.requires_grad_(False)
    return network


@pytest.fixture
def groups(model: Residual, inputs: Tensor) -> Groups:
    return discover(model, inputs)


def halved(groups: Groups) -> Plan:
    return Plan.uniform(groups, 0.5, {g.name: torch.arange(g.width) for g in groups.prunable})


def test_class_names_flags_and_types_are_the_originals(model: Residual, groups: Groups) -> None:
    small = build(groups, halved(groups))
    assert type(small) is Residual
    assert list(small.state_dict()) == list(model.state_dict())
    assert [m.training for m in small.modules()] == [m.training for m in model.modules()]
    assert [p.requires_grad for p in small.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]
    assert small.stem.weight.shape == (4, 3, 3, 3)
    assert (small.stem.out_channels, small.norm.num_features, small.head.in_features) == (4, 4, 4)
    assert all(p.is_leaf and p.grad is None for p in small.parameters())


def test_hooks_go_with_it(model: Residual, inputs: Tensor) -> None:
    seen: list[tuple[int, ...]] = []
    model.a.register_forward_hook(lambda m, args, out: seen.append(tuple(out.shape)))
    groups = discover(model, inputs)
    seen.clear()
    small = build(groups, halved(groups))
    small(inputs)
    assert seen == [(2, 3, 8, 8)]


def test_it_shares_nothing_with_the_original(model: Residual, groups: Groups) -> None:
    small = build(groups, Plan.dense_plan(groups))
    mine = {t.untyped_storage().data_ptr() for t in model.state_dict().values()}
    assert not mine & {t.untyped_storage().data_ptr() for t in small.state_dict().values()}


def test_the_original_is_untouched(model: Residual, inputs: Tensor) -> None:
    before = {n: t.clone() for n, t in model.state_dict().items()}
    flags = [m.training for m in model.modules()]
    groups = discover(model, inputs)
    plan = halved(groups)
    rlprune.mask(model, inputs, plan)
    rlprune.compact(model, inputs, plan)
    Workspace(groups).build(plan)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert [m.training for m in model.modules()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not nn.modules.module._global_forward_hooks


def test_copy_save_load_and_one_training_step(
    groups: Groups, inputs: Tensor, tmp_path: Path
) -> None:
    small = build(groups, halved(groups))
    torch.save(small.state_dict(), tmp_path / "small.pt")
    again = build(groups, halved(groups))
    for tensor in again.state_dict().values():
        tensor.zero_()
    again.load_state_dict(torch.load(tmp_path / "small.pt", weights_only=True))
    twin = copy.deepcopy(small)
    assert difference(small, again, inputs).relative == 0
    small.train()
    optimizer = torch.optim.SGD([p for p in small.parameters() if p.requires_grad], lr=0.1)
    F.cross_entropy(small(inputs), torch.tensor([0, 1])).backward()
    optimizer.step()
    assert not torch.equal(small.head.weight, twin.head.weight)
    assert torch.equal(small.stem.weight, twin.stem.weight)


def test_export_and_compile(groups: Groups, inputs: Tensor) -> None:
    small = build(groups, halved(groups)).eval()
    expected = small(inputs)
    program = torch.export.export(small, (inputs,))
    torch.testing.assert_close(program.module()(inputs), expected)
    compiled: Any = torch.compile(small, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs), expected)


def test_a_compacted_network_can_be_compacted_again(groups: Groups, inputs: Tensor) -> None:
    small = build(groups, halved(groups))
    again = discover(small, inputs)
    assert [g.width for g in again.prunable] == [len(u) for u in halved(groups).keep.values()]
    assert rlprune.compact(small, inputs, halved(again)).stem.out_channels == 2


def test_the_masked_network_is_dense_and_silent(groups: Groups, inputs: Tensor) -> None:
    plan = halved(groups)
    masked = masked_copy(groups, plan)
    assert masked.stem.weight.shape == (8, 3, 3, 3)
    gone = [u for u in range(8) if u not in plan.keep["stem"]]
    assert not masked.head.weight[:, gone].any()
    before = masked(inputs)
    with torch.no_grad():
        masked.b.weight[gone] += 1.0
        masked.norm.bias[gone] += 1.0
    torch.testing.assert_close(masked(inputs), before)


def test_a_workspace_forgets_the_candidate_before(groups: Groups, inputs: Tensor) -> None:
    workspace = Workspace(groups)
    dense = Plan.dense_plan(groups)
    for plan in (halved(groups), dense, halved(groups)):
        candidate = workspace.build(plan)
        assert difference(candidate, build(groups, plan), inputs).relative <= 1e-6
        candidate.norm.running_mean.fill_(7.0)
    assert not candidate.training
    assert not any(p.requires_grad for p in candidate.parameters())


def test_a_plan_for_another_network_is_refused(groups: Groups) -> None:
    with pytest.raises(PlanError, match="no group named 'other'"):
        build(groups, Plan({"other": (0,)}, {"other": 2}))
    with pytest.raises(PlanError, match="8 units in this network, 9 in the plan"):
        build(groups, Plan({"stem": (0,)}, {"stem": 9}))
    with pytest.raises(PlanError, match="'head' is not prunable: it is an output"):
        build(groups, Plan({"head": (0,)}, {"head": 4}))
