"""Sizes that a module's own code names follow a plan; the smaller network is an ordinary one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.compaction import Workspace, build, discover
from rlprune.compaction.difference import difference
from rlprune.compaction.plans import Bonds, uneven_plan
from rlprune.compaction.verify import masked_copy
from rlprune.structure import Groups
from tests.structure.laws import hold, widths

TOKENS = torch.randn(2, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    """Packed attention as most vision transformers spell it; its width is that of the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor, scale: float = 2.0, *, shift: float = 0.0) -> Tensor:
        B, N, C = x.shape  # noqa: N806
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * scale + shift).softmax(-1)
        return self.proj(self.joined(weights @ v, (B, N, C)))

    def joined(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return x.transpose(1, 2).reshape(shape)


class Bagged(Attention):
    """Batch and heads share a dimension, and super() is used."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        assert super().extra_repr() == ""
        B, N, C = x.shape  # noqa: N806
        heads, size = 4, C // 4
        q, k, v = self.qkv(x).split(C, dim=-1)
        q, k, v = (t.reshape(B, N, heads, size).transpose(1, 2) for t in (q, k, v))
        q, k, v = (t.reshape(B * heads, N, size) for t in (q, k, v))
        out = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v)
        return x + self.proj(out.reshape(B, heads, N, size).transpose(1, 2).reshape(B, N, C))


class Parts(nn.Module):
    """Unlike parts, their sizes in a list that no attribute of the class repeats."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.sizes = nn.Linear(8, 12), [6, 4, 2]
        self.parts = nn.ModuleList(nn.Linear(n, n) for n in self.sizes)
        self.down = nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = torch.split(self.up(x), self.sizes, -1)
        a, b, c = (F.relu(f(t)) for f, t in zip(self.parts, (a, b, c), strict=True))
        return self.down(torch.cat([a, b, c], -1))


class Starred(nn.Module):
    """Sizes that come as one expression, and through ``unflatten``."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        lead, width = x.shape[:-1], x.shape[-1] * 3 // 2
        h = F.relu(self.up(x)).reshape(*lead, width)
        return self.down(h.unflatten(-1, (width, 1)).flatten(-2))


def network(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    norms = (nn.LayerNorm(8), nn.LayerNorm(8))
    return nn.Sequential(nn.Linear(8, 8), norms[0], kind(), norms[1], kind()).double().eval()


@pytest.fixture(scope="module")
def attention() -> tuple[nn.Module, Groups]:
    model = network(Attention)
    return model, discover(model, TOKENS)


@pytest.mark.parametrize("kind", [Attention, Bagged, Starred])
def test_written_sizes_follow(kind: type[nn.Module]) -> None:
    groups, small = hold(network(kind), TOKENS)
    blocks = [n for n in widths(groups) if n.startswith(("2.", "4."))]
    assert len(blocks) >= 2, groups.table()
    masked = masked_copy(groups, uneven_plan(groups))
    small = build(groups, uneven_plan(groups))
    for inputs in (TOKENS, TOKENS[:1], torch.cat([TOKENS, TOKENS], 1)):
        assert difference(masked, small, inputs).agrees
    assert all(isinstance(small[k], kind) for k in (2, 4))
    assert type(groups.model[2]) is kind


def test_lists_of_sizes_follow() -> None:
    groups, small = hold(network(Parts), TOKENS)
    assert sum(n.startswith("2.") for n in widths(groups)) >= 3, groups.table()
    assert small[2].sizes == [6, 4, 2]


def test_a_smaller_network_is_an_ordinary_one(attention: tuple[nn.Module, Groups]) -> None:
    _, groups = attention
    small = build(groups, uneven_plan(groups))
    expected = small(TOKENS)
    torch.testing.assert_close(copy.deepcopy(small)(TOKENS), expected)
    other = build(groups, uneven_plan(groups))
    other.load_state_dict({n: t * 1.0 for n, t in small.state_dict().items()})
    torch.testing.assert_close(other(TOKENS), expected)
    exported = torch.export.export(small, (TOKENS,))
    torch.testing.assert_close(exported.module()(TOKENS), expected)
    compiled = torch.compile(small, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(TOKENS), expected)
    small.train()
    small(TOKENS).square().sum().backward()
    assert all(p.grad is not None for p in small[2].parameters())
    torch.testing.assert_close(small[2](TOKENS, 1.0, shift=2.0), small[2](TOKENS, scale=1.0))


def test_a_workspace_follows_plan_after_plan(attention: tuple[nn.Module, Groups]) -> None:
    model, groups = attention
    workspace = Workspace(groups)
    for seed in (0, 1, 2):
        plan = uneven_plan(groups, seed=seed)
        assert difference(workspace.build(plan), build(groups, plan), TOKENS).relative == 0
    dense = uneven_plan(groups, Bonds([g.name for g in groups]))
    assert difference(workspace.build(dense), model, TOKENS).agrees
