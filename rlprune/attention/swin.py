"""torchvision's shifted-window attention (Swin v1 and v2) with an explicit head size."""

from __future__ import annotations

import math
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.swin_transformer import (
    ShiftedWindowAttention,
    ShiftedWindowAttentionV2,
)


class AdaptiveShiftedWindowAttention(ShiftedWindowAttention):
    """Window attention of Swin (Liu et al. 2021); ``num_heads`` may shrink, the head size stays."""

    _rlprune_stock_class = ShiftedWindowAttention

    def forward(self, x: Tensor) -> Tensor:
        """Attend within shifted windows. x: [batch, height, width, channels], and so the result."""
        return _attend(self, x)


class AdaptiveShiftedWindowAttentionV2(ShiftedWindowAttentionV2):
    """Window attention of Swin v2: cosine scores, position bias from a small network."""

    _rlprune_stock_class = ShiftedWindowAttentionV2

    def forward(self, x: Tensor) -> Tensor:
        """Attend within shifted windows. x: [batch, height, width, channels], and so the result."""
        return _attend(self, x)


def _attend(attention: ShiftedWindowAttention, x: Tensor) -> Tensor:
    batch, height, width, _ = x.shape
    rows, columns = attention.window_size
    x = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
    high, wide = x.shape[1:3]
    shift = [
        0 if window >= size else step
        for window, size, step in zip(
            (rows, columns), (high, wide), attention.shift_size, strict=True
        )
    ]
    if sum(shift):
        x = torch.roll(x, shifts=(-shift[0], -shift[1]), dims=(1, 2))
    x = x.unflatten(2, (-1, columns)).unflatten(1, (-1, rows))
    x = x.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(0, 2)

    scores, v = _scores(attention, x)
    scores = scores + attention.get_relative_position_bias()
    if sum(shift):
        mask = _shift_mask(x, (high, wide), (rows, columns), shift)
        scores = scores.unflatten(0, (-1, mask.shape[0])) + mask.unsqueeze(1)
        scores = scores.flatten(0, 1)
    weights = F.dropout(
        scores.softmax(-1), attention.attention_dropout, training=attention.training
    )
    x = (weights @ v).transpose(1, 2).flatten(2)
    x = F.linear(x, attention.proj.weight, attention.proj.bias)
    x = F.dropout(x, attention.dropout, training=attention.training)

    x = x.reshape(batch, high // rows, wide // columns, rows, columns, -1)
    x = x.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)
    if sum(shift):
        x = torch.roll(x, shifts=(shift[0], shift[1]), dims=(1, 2))
    return x[:, :height, :width, :].contiguous()


def _scores(attention: ShiftedWindowAttention, x: Tensor) -> tuple[Tensor, Tensor]:
    """Attention scores [windows, heads, n, n] and values [windows, heads, n, head size]."""
    cosine = isinstance(attention, ShiftedWindowAttentionV2)
    bias = attention.qkv.bias
    if cosine and bias is not None:
        q_bias, k_bias, v_bias = bias.chunk(3)
        bias = torch.cat([q_bias, torch.zeros_like(k_bias), v_bias])
    qkv = F.linear(x, attention.qkv.weight, bias)
    q, k, v = (
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for part in qkv.chunk(3, dim=-1)
    )
    if cosine:
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        return scores * torch.clamp(attention.logit_scale, max=math.log(100.0)).exp(), v
    return (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1), v


def _shift_mask(
    x: Tensor, size: tuple[int, int], window: tuple[int, int], shift: list[int]
) -> Tensor:
    """-100 between positions that are neighbours only by the cyclic shift, [windows, n, n]."""
    region = x.new_zeros(size)
    spans = [((0, -w), (-w, -s), (-s, None)) for w, s in zip(window, shift, strict=True)]
    for count, ((top, bottom), (left, right)) in enumerate(product(*spans)):
        region[top:bottom, left:right] = count
    rows, columns = window
    region = region.view(size[0] // rows, rows, size[1] // columns, columns)
    region = region.permute(0, 2, 1, 3).reshape(-1, rows * columns)
    differ = region.unsqueeze(1) != region.unsqueeze(2)
    return torch.zeros_like(differ, dtype=x.dtype).masked_fill_(differ, -100.0)
