"""Gymnasium environments of rlprune.

Importing this package registers them; Gymnasium does it itself for a module-prefixed id::

    env = gymnasium.make("rlprune_envs:KeepRatio-v0", problem=evaluator)
"""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

from rlprune_envs.handle import ProblemHandle
from rlprune_envs.keep_ratio import KeepRatioEnv
from rlprune_envs.preview import Previews

__all__ = ["KeepRatioEnv", "Previews", "ProblemHandle"]

if "KeepRatio-v0" not in registry:
    register(id="KeepRatio-v0", entry_point="rlprune_envs.keep_ratio:KeepRatioEnv")
