"""Gymnasium environments of rlprune.

Importing this package registers them; Gymnasium does it itself for a module-prefixed id::

    env = gymnasium.make("rlprune_envs:KeepRatio-v0", problem=problem)
"""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

from rlprune_envs.handle import ProblemHandle
from rlprune_envs.keep_ratio import KeepRatioEnv

__all__ = ["KeepRatioEnv", "ProblemHandle"]

if "KeepRatio-v0" not in registry:
    register(id="KeepRatio-v0", entry_point="rlprune_envs.keep_ratio:KeepRatioEnv")
