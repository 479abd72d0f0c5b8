"""Integers that repeat a size follow it, in modules nobody has described."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune import compact
from rlprune.compaction import Workspace, build, discover, verify
from rlprune.plan import Plan
from rlprune.structure.groups import Groups


def plan_of(groups: Groups, seed: int = 0, keep: float = 0.5) -> Plan:
    generator = torch.Generator().manual_seed(seed)
    scores = {g.name: torch.rand(g.width, generator=generator) for g in groups.prunable}
    return Plan.uniform(groups, keep, scores)


def check(model: nn.Module, x: Tensor) -> nn.Module:
    model = model.double().eval()
    x = x.double() if x.is_floating_point() else x
    groups = discover(model, x)
    workspace = Workspace(groups)
    for seed in range(3):
        plan = plan_of(groups, seed)
        small = build(groups, plan)
        assert verify(groups, small, plan) <= 1e-10
        assert verify(groups, workspace.build(plan), plan) <= 1e-10
    dense = workspace.build(Plan.dense_plan(groups))
    torch.testing.assert_close(dense(x), model(x), rtol=0, atol=1e-12)
    return small


class HandWritten(nn.Module):
    """Attention as people write it, every size kept in an attribute."""

    def __init__(self, dim: int = 24, heads: int = 4, head_dim: int = 6) -> None:
        super().__init__()
        self.embed_dim = dim
        self.n_head = heads
        self.head_dim = head_dim
        self.inner_dim = heads * head_dim
        self.qkv = nn.Linear(dim, 3 * self.inner_dim)
        self.out = nn.Linear(self.inner_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).split(self.inner_dim, dim=-1)
        shape = (batch, length, self.n_head, self.head_dim)
        q, k, v = (t.view(shape).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.out(y.reshape(batch, length, self.inner_dim))


class AmbiguousName(HandWritten):
    """The inner width is read from an attribute whose name also fits the outer width."""

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        shape = (batch, length, self.n_head, self.head_dim)
        q, k, v = (t.view(shape).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.out(y.reshape(batch, length, self.embed_dim))


@pytest.mark.parametrize("kind", [HandWritten, AmbiguousName])
def test_hand_written_attention(kind: type[HandWritten]) -> None:
    model = nn.Sequential(nn.Linear(5, 24), nn.LayerNorm(24), kind(), nn.Linear(24, 2))
    small = check(model, torch.randn(2, 7, 5))
    assert (small[2].n_head, small[2].head_dim, small[2].inner_dim) == (2, 6, 12)


def test_a_size_in_an_attribute_of_any_name_is_found_by_a_trial_run() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seed = 12
            self.planes = 12
            self.conv = nn.Conv2d(3, 12, 3)
            self.head = nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(x).mean((2, 3)).view(-1, self.planes))

    small = check(Net(), torch.randn(2, 3, 6, 6))
    assert small.planes == 6
    assert small.seed == 12


def test_norms_without_parameters_and_unflatten() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.GroupNorm(4, 12, affine=False),
        nn.ReLU(),
        nn.Conv2d(12, 10, 3, padding=1),
        nn.InstanceNorm2d(10),
        nn.Flatten(),
        nn.Unflatten(1, (10, 4, 4)),
        nn.Conv2d(10, 2, 1),
    )
    small = check(model, torch.randn(2, 3, 4, 4))
    assert (small[1].num_groups, small[1].num_channels) == (2, 6)
    assert small[4].num_features == 5
    assert tuple(small[6].unflattened_size) == (5, 4, 4)


def test_a_constant_outside_modules_freezes_what_meets_it_and_names_the_op() -> None:
    class Baked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 3)
            self.head = nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(flat(self.conv(self.stem(x)).mean((2, 3))))

    def flat(x: Tensor) -> Tensor:
        return x.view(-1, 12)

    model, x = Baked(), torch.randn(2, 3, 6, 6)
    groups = discover(model, x)
    assert [g.name for g in groups.prunable] == ["stem"]
    assert groups["conv"].reason.startswith("view in the model's own forward: ")
    compact(model, x, plan_of(groups))


def test_a_mask_made_at_the_size_of_the_heads_follows_them() -> None:
    class Biased(HandWritten):
        def forward(self, x: Tensor) -> Tensor:
            batch, length, _ = x.shape
            q, k, v = self.qkv(x).chunk(3, dim=-1)
            shape = (batch, length, self.n_head, self.head_dim)
            q, k, v = (t.view(shape).transpose(1, 2) for t in (q, k, v))
            causal = torch.ones(length, length, dtype=torch.bool).tril()
            mask = causal.expand(batch, self.n_head, length, length)
            bias = x.new_zeros(1, self.n_head, length, length)
            scores = (q @ k.transpose(-1, -2) + bias).masked_fill(~mask, float("-inf"))
            return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    model = nn.Sequential(nn.Linear(5, 24), nn.LayerNorm(24), Biased(), nn.Linear(24, 2))
    small = check(model, torch.randn(2, 7, 5))
    assert small[2].n_head == 2
