"""`torch.nn.MultiheadAttention` with an explicit head size."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.errors import StructureError


class AdaptiveMultiheadAttention(nn.MultiheadAttention):
    """Multi-head attention whose projections may be narrower than ``embed_dim``.

    ``head_dim`` stays that of the dense module and ``num_heads * head_dim`` is the inner width.
    Parameters, state-dict names, masks, dropout and return values are those of the stock class; its
    fused inference path, which needs square projections, is not taken.
    """

    _rlprune_stock_class = nn.MultiheadAttention

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention output and weights; arguments and shapes as in ``nn.MultiheadAttention``."""
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal is a hint about attn_mask; give the mask too")
        batched = query.dim() == 3
        q, k, v = self._project(query, key, value, batched)
        q, k, v = (x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for x in (q, k, v))
        attn_mask = _as_float(attn_mask, q.dtype)
        causal = is_causal and key_padding_mask is None and not need_weights
        mask = None if causal else self._heads_mask(attn_mask, q)
        padding = _as_float(key_padding_mask, q.dtype)
        if self.bias_k is not None or self.add_zero_attn:
            causal = False
            mask = self._heads_mask(attn_mask, q)
            extra = int(self.bias_k is not None) + int(self.add_zero_attn)
            mask = None if mask is None else F.pad(mask, (0, extra))
            padding = None if padding is None else F.pad(padding, (0, extra))
        if padding is not None:
            padding = padding.reshape(q.shape[0], 1, 1, -1)
            mask = padding if mask is None else mask + padding

        weights = None
        rate = self.dropout if self.training else 0.0
        if need_weights:
            weights = (q * math.sqrt(1.0 / self.head_dim)) @ k.transpose(-2, -1)
            weights = weights if mask is None else weights + mask
            weights = F.dropout(F.softmax(weights, dim=-1), rate) if rate else weights.softmax(-1)
            out = weights @ v
            weights = weights.mean(dim=1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        else:
            out = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=rate, is_causal=causal
            )
        out = out.transpose(1, 2).flatten(2)
        out = F.linear(out, self.out_proj.weight, self.out_proj.bias)
        if not batched:
            return out.squeeze(0), weights
        return out if self.batch_first else out.transpose(0, 1), weights

    def _project(
        self, query: Tensor, key: Tensor, value: Tensor, batched: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [batch, length, num_heads * head_dim]."""
        if self.in_proj_weight is None:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        else:
            weights = self.in_proj_weight.chunk(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        inputs = [query, key, value]
        if not batched:
            inputs = [x.unsqueeze(0) for x in inputs]
        elif not self.batch_first:
            inputs = [x.transpose(0, 1) for x in inputs]
        if query is key and key is value and self.in_proj_weight is not None:
            packed = F.linear(inputs[0], self.in_proj_weight, self.in_proj_bias)
            q, k, v = packed.chunk(3, dim=-1)
        else:
            q, k, v = (F.linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True))
        if self.bias_k is not None and self.bias_v is not None:
            shape = (q.shape[0], -1, -1)
            k = torch.cat([k, self.bias_k.expand(*shape)], dim=1)
            v = torch.cat([v, self.bias_v.expand(*shape)], dim=1)
        if self.add_zero_attn:
            k = torch.cat([k, torch.zeros_like(k[:, :1])], dim=1)
            v = torch.cat([v, torch.zeros_like(v[:, :1])], dim=1)
        return q, k, v

    def _heads_mask(self, mask: Tensor | None, q: Tensor) -> Tensor | None:
        """An attention mask as [1 or batch, 1 or heads, target length, source length]."""
        if mask is None or mask.dim() == 2:
            return mask if mask is None else mask[None, None]
        batch, heads = q.shape[0], q.shape[1]
        if mask.shape[0] != batch * heads:
            raise StructureError(
                f"attn_mask holds {mask.shape[0]} masks for {batch} samples of {heads} heads; "
                "give one mask for all heads (length x length), or exclude this attention"
            )
        return mask.unflatten(0, (batch, heads))


def _as_float(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A boolean mask (True hides) as an additive one; an additive one as it is."""
    if mask is None or mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, float("-inf"))
