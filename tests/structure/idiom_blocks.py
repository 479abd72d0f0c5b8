"""Random blocks over sequences [b, t, d] as public networks spell them, sizes in attributes."""

from __future__ import annotations

from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.structure.sequence_blocks import Block


class Heads(Block):
    """Queries, keys and values of one product, heads counted by an attribute."""

    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        self.num_heads, self.head_dim = rng.choice([2, 3]), rng.randint(2, 4)
        self.dim = self.num_heads * self.head_dim
        self.scale = self.head_dim**-0.5
        self.into, self.qkv = nn.Linear(d, self.dim), nn.Linear(self.dim, 3 * self.dim)
        self.proj = nn.Linear(self.dim, d)


class Packed(Heads):
    """``B, N, C = x.shape`` and ``reshape(B, N, C)``."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.into(x))
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q * self.scale @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))


class CrossCovariance(Heads):
    """Attention between channels, with a temperature per head."""

    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        self.temperature = nn.Parameter(torch.ones(self.num_heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.into(x))
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 4, 1)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        weights = (q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1)
        return self.proj((weights @ v).permute(0, 3, 1, 2).reshape(b, n, c))


class Class(Heads):
    """One token asks all, and is put back in front of the others."""

    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        self.q, self.kv = nn.Linear(self.dim, self.dim), nn.Linear(self.dim, 2 * self.dim)
        del self.qkv

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.into(x))
        b, n, c = h.shape
        q = self.q(h[:, 0]).unsqueeze(1).reshape(b, 1, self.num_heads, c // self.num_heads)
        k, v = self.kv(h).reshape(b, n, 2, self.num_heads, c // self.num_heads).unbind(2)
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, 1, c)
        return torch.cat([self.proj(y), x[:, 1:]], dim=1)


class Talking(Heads):
    """Linear layers mix heads before and after the softmax."""

    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        self.before, self.after = (nn.Linear(self.num_heads, self.num_heads) for _ in "ab")

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.into(x))
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = self.before((q @ k.transpose(-2, -1)).permute(0, 2, 3, 1))
        weights = self.after(weights.permute(0, 3, 1, 2).softmax(dim=-1).permute(0, 2, 3, 1))
        return self.proj((weights.permute(0, 3, 1, 2) @ v).transpose(1, 2).reshape(b, n, c))


class Relative(Heads):
    """A table of biases by distance, one column per head."""

    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        self.reach = rng.randint(2, 9)
        self.table = nn.Parameter(torch.randn(2 * self.reach + 1, self.num_heads))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.into(x))
        b, n, _ = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (y.view(b, n, self.num_heads, -1).transpose(1, 2) for y in (q, k, v))
        at = torch.arange(n)
        index = (at[:, None] - at).clamp(-self.reach, self.reach) + self.reach
        bias = self.table[index.view(-1)].view(n, n, -1).permute(2, 0, 1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.unsqueeze(0))
        return self.proj(y.transpose(1, 2).reshape(b, n, -1))


class Linear(Heads):
    """Attention without a softmax over positions: keys times values first."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.into(x))
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.num_heads, self.head_dim).unbind(2)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        memory = torch.einsum("bnhd,bnhe->bhde", k, v)
        length = torch.einsum("bnhd,bhd->bnh", q, k.sum(1))
        y = torch.einsum("bnhd,bhde->bnhe", q, memory) / length.unsqueeze(-1)
        return self.proj(y.flatten(2))


class OneHead(Block):
    """Attention of a single head: values may be fewer than keys."""

    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        inner = rng.randint(3, 6)
        self.q, self.k = nn.Linear(d, inner), nn.Linear(d, inner)
        self.v, self.proj = nn.Linear(d, inner), nn.Linear(inner, d)
        self.fused = rng.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        if self.fused:
            q, k, v = (y.unsqueeze(1) for y in (q, k, v))
            return self.proj(F.scaled_dot_product_attention(q, k, v).squeeze(1))
        return self.proj((q @ k.transpose(1, 2) / k.shape[-1] ** 0.5).softmax(-1) @ v)


class Parts(Block):
    """A list of sizes that a split is given, one part convolved and put side by side again."""

    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        self.half = rng.randint(2, 4)
        self.up = nn.Linear(d, 2 * self.half)
        self.mid, self.down = nn.Linear(self.half, self.half), nn.Linear(3 * self.half, d)
        self.listed = rng.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.up(x))
        parts = list(h.split((self.half, self.half) if self.listed else self.half, dim=-1))
        parts.append(torch.relu(self.mid(parts[-1])))
        return self.down(torch.cat(parts, dim=-1))


class Selective(Block):
    """A selective state space, its scan spelled out."""

    def __init__(self, rng: Random, t: int, d: int) -> None:
        super().__init__(rng, t, d)
        self.inner, self.state, self.rank = rng.randint(3, 5), rng.randint(2, 3), 2
        self.up = nn.Linear(d, 2 * self.inner)
        self.conv = nn.Conv1d(self.inner, self.inner, 3, padding=2, groups=self.inner)
        self.x = nn.Linear(self.inner, self.rank + 2 * self.state)
        self.dt, self.down = nn.Linear(self.rank, self.inner), nn.Linear(self.inner, d)
        self.decay = nn.Parameter(torch.rand(self.inner, self.state))
        self.skip = nn.Parameter(torch.rand(self.inner))

    def forward(self, u: Tensor) -> Tensor:
        x, gate = self.up(u).chunk(2, dim=-1)
        x = F.silu(self.conv(x.transpose(1, 2))[..., : u.shape[1]]).transpose(1, 2)
        dt, b, c = self.x(x).split([self.rank, self.state, self.state], dim=-1)
        dt = F.softplus(self.dt(dt))
        h, out = x.new_zeros(len(x), self.inner, self.state), []
        for n in range(x.shape[1]):
            kept = (-dt[:, n, :, None] * self.decay.exp()).exp()
            h = kept * h + (dt[:, n] * x[:, n])[..., None] * b[:, n, None]
            out.append((h * c[:, n, None]).sum(-1))
        return self.down((torch.stack(out, dim=1) + x * self.skip) * F.silu(gate))


BLOCKS: tuple[type[Block], ...] = (
    *(Packed, CrossCovariance, Class, Talking, Relative, Linear),
    *(OneHead, Parts, Selective),
)
