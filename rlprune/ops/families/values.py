"""Ops whose result, or its shape, depends on values."""

from __future__ import annotations

from rlprune.ops.table import register, unknown

register(
    "_local_scalar_dense nonzero equal masked_select _unique2 unique_dim bincount",
    unknown,
    looks=True,
)
