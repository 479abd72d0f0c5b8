"""Followers of torch.nn's layers."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from rlprune.compaction.adapters._registry import follows


@follows(_ConvNd)
def _conv(dense: nn.Module, small: nn.Module, grouped: str | None) -> None:
    assert isinstance(small, _ConvNd)
    assert isinstance(dense, _ConvNd)
    weight, before = small.weight, dense.weight
    groups = dense.groups
    if grouped == "groups":
        rows, dense_rows = weight.shape[0], before.shape[0]
        groups = dense.groups * rows // dense_rows
    small.groups = groups
    if small.transposed:
        small.in_channels, small.out_channels = weight.shape[0], weight.shape[1] * groups
    else:
        small.in_channels, small.out_channels = weight.shape[1] * groups, weight.shape[0]


@follows(nn.Linear)
def _linear(dense: nn.Module, small: nn.Module, grouped: str | None) -> None:
    assert isinstance(small, nn.Linear)
    small.out_features, small.in_features = small.weight.shape


@follows(_NormBase)
def _norm(dense: nn.Module, small: nn.Module, grouped: str | None) -> None:
    assert isinstance(small, _NormBase)
    for tensor in (small.weight, small.running_mean):
        if tensor is not None:
            small.num_features = tensor.shape[0]


@follows(nn.GroupNorm)
def _group_norm(dense: nn.Module, small: nn.Module, grouped: str | None) -> None:
    assert isinstance(small, nn.GroupNorm)
    assert isinstance(dense, nn.GroupNorm)
    if small.weight is None:
        return
    per_group = dense.num_channels // dense.num_groups
    small.num_channels = small.weight.shape[0]
    small.num_groups = small.num_channels // per_group


@follows(nn.LayerNorm)
def _layer_norm(dense: nn.Module, small: nn.Module, grouped: str | None) -> None:
    assert isinstance(small, nn.LayerNorm)
    if small.weight is not None:
        small.normalized_shape = tuple(small.weight.shape)


@follows(nn.Embedding)
def _embedding(dense: nn.Module, small: nn.Module, grouped: str | None) -> None:
    assert isinstance(small, nn.Embedding)
    small.num_embeddings, small.embedding_dim = small.weight.shape


@follows(nn.PReLU)
def _prelu(dense: nn.Module, small: nn.Module, grouped: str | None) -> None:
    assert isinstance(small, nn.PReLU)
    small.num_parameters = small.weight.numel()


@follows("transformers.pytorch_utils.Conv1D")
def _transposed_linear(dense: Any, small: Any, grouped: str | None) -> None:
    """Hugging Face's linear layer with its weight stored [in, out]."""
    small.nx, small.nf = small.weight.shape
