"""Ops by what they do to a unit that is a multiple of another."""

from __future__ import annotations


def _ops(names: str) -> frozenset[str]:
    return frozenset(names.split())


MOVES = _ops(
    "view reshape _unsafe_view _reshape_alias permute transpose t unsqueeze squeeze flip movedim "
    "alias detach clone contiguous _to_copy lift_fresh positive dropout expand"
)
"""Ops that hand on every value they are given, once each or repeated."""

KEEPS = _ops(
    "relu leaky_relu abs neg cat concatenate stack split split_with_sizes chunk unbind slice "
    "select index index_select narrow roll repeat repeat_interleave gather unfold im2col "
    "pixel_shuffle pixel_unshuffle channel_shuffle mean sum nansum amax amin maximum minimum "
    "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices avg_pool1d "
    "avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d fractional_max_pool2d reflection_pad1d reflection_pad2d reflection_pad3d "
    "replication_pad1d replication_pad2d replication_pad3d upsample_nearest1d upsample_nearest2d "
    "upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "_upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d "
    "upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa linalg_vector_norm "
    "cumsum"
)
"""Ops with f(t x) = t f(x) for t > 0, applied to each unit alone; several operands scale alike."""

LISTS = _ops("split split_with_sizes chunk unbind")
BLANK = _ops(
    "zeros_like ones_like full_like empty_like rand_like randn_like fill zero new_zeros new_ones "
    "new_full new_empty empty zeros"
)
ZEROS = _ops("zeros zeros_like new_zeros zero")
NORMS = _ops(
    "native_batch_norm _native_batch_norm_legit_no_training _native_batch_norm_legit "
    "cudnn_batch_norm miopen_batch_norm _batch_norm_no_update _batch_norm_with_update"
)
PRODUCTS = _ops("convolution _convolution mm addmm bmm baddbmm mv linear embedding")
