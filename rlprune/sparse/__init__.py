"""Sparsity inside tensors, told honestly: zeros save nothing until something makes use of them.

`sparsify` makes zeros, `hold` and `release` keep them through fine-tuning, `save_sparse` and
`load_sparse` store them in less space. Whole units are removed by `rlprune.prune`.
"""

from __future__ import annotations

from rlprune.sparse.compressed import compressed
from rlprune.sparse.layers import zeros
from rlprune.sparse.masks import hold, release
from rlprune.sparse.pattern import Pattern
from rlprune.sparse.sparsify import METHODS, sparsify
from rlprune.sparse.storage import load_sparse, read_sparse, save_sparse

__all__ = [
    "METHODS",
    "Pattern",
    "compressed",
    "hold",
    "load_sparse",
    "read_sparse",
    "release",
    "save_sparse",
    "sparsify",
    "zeros",
]
