"""Data for pruning: splits that never mix, decoded once, augmented on tensors."""

from __future__ import annotations

from rlprune.data.cache import cache_dir
from rlprune.data.dataset import Data
from rlprune.data.folder import Folder, decode, scan
from rlprune.data.named import load
from rlprune.data.splits import WHOLE, Share

__all__ = ["WHOLE", "Data", "Folder", "Share", "cache_dir", "decode", "load", "scan"]
