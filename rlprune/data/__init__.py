"""Data for pruning: splits that never mix, decoded once, augmented on tensors."""

from __future__ import annotations

from rlprune.data.dataset import Data
from rlprune.data.named import load

__all__ = ["Data", "load"]
