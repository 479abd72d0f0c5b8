"""Which descriptions of a network may be followed when they come from a stranger (law 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlprune.models.registry import TIMM, TORCHVISION, names

_TIMM_REFUSED = frozenset(
    ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
)


def is_harmless(factory: Any) -> bool:
    """Whether arguments of :func:`rlprune.models.create` only build a network that is known here.

    Registered names and ``torchvision/...`` do, ``timm.create_model`` does as long as it reads no
    files. Any other dotted path names a function that would be called with arguments of the
    stranger's choice.

    Args:
        factory: The arguments, as a run folder records them.
    """
    if not isinstance(factory, Mapping) or not all(isinstance(key, str) for key in factory):
        return False
    wanted = factory.get("name", factory.get("_target_"))
    if not isinstance(wanted, str) or factory.get("weights") is not None:
        return False
    if wanted == TIMM:
        model = factory.get("model_name")
        return isinstance(model, str) and ":" not in model and not _TIMM_REFUSED & factory.keys()
    return wanted in names() or wanted.startswith(TORCHVISION)
