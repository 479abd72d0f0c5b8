"""Followers of attention modules: head counts, and the class that can express them."""

from __future__ import annotations

from typing import Any

from torch import nn

from rlprune.attention import adapt, stock_class
from rlprune.compaction.adapters._registry import follows


@follows(nn.MultiheadAttention)
def _multihead(dense: nn.Module, small: nn.Module, grouped: str | None) -> None:
    assert isinstance(small, nn.MultiheadAttention)
    assert isinstance(dense, nn.MultiheadAttention)
    if small.in_proj_weight is not None:
        inner = small.in_proj_weight.shape[0] // 3
    else:
        inner = small.q_proj_weight.shape[0]
    small.num_heads = inner // dense.head_dim
    packed = small.in_proj_weight is not None
    weights = [small.in_proj_weight] * 2 if packed else [small.q_proj_weight, small.k_proj_weight]
    query, key = weights[0].shape[1], weights[1].shape[1]
    small.kdim, small.vdim = key, key if packed else small.v_proj_weight.shape[1]
    small.embed_dim = small.out_proj.weight.shape[0]
    # Only the adaptive class can hold widths that differ; nn.TransformerEncoderLayer asks
    # _qkv_same_embed_dim before it takes its fused path.
    pruned = len({inner, query, small.embed_dim}) > 1
    adapt(small, pruned)
    small._qkv_same_embed_dim = dense._qkv_same_embed_dim and not pruned


@follows(nn.TransformerEncoder)
def _encoder(dense: nn.Module, small: nn.Module, grouped: str | None) -> None:
    """Nested tensors need every layer on the fused path, which pruned attention cannot take."""
    assert isinstance(small, nn.TransformerEncoder)
    assert isinstance(dense, nn.TransformerEncoder)
    attentions = [m for m in small.modules() if isinstance(m, nn.MultiheadAttention)]
    pruned = any(type(m) is not stock_class(type(m)) for m in attentions)
    small.use_nested_tensor = dense.use_nested_tensor and not pruned


@follows("torchvision.models.swin_transformer.ShiftedWindowAttention")
def _shifted_window(dense: Any, small: Any, grouped: str | None) -> None:
    head_dim = dense.qkv.out_features // 3 // dense.num_heads
    small.num_heads = small.qkv.weight.shape[0] // 3 // head_dim
    adapt(small, small.num_heads != dense.num_heads)


@follows("torchvision.models.maxvit.RelativePositionalMultiHeadAttention")
def _maxvit(dense: Any, small: Any, grouped: str | None) -> None:
    small.n_heads = small.to_qkv.weight.shape[0] // 3 // small.head_dim
    adapt(small, small.n_heads != dense.n_heads)
