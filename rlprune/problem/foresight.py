"""What is known before the first evaluation, kept in files: a resumed search need not wait."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rlprune.files import write_atomically
from rlprune.identity import digest
from rlprune.version import VERSION

logger = logging.getLogger(__name__)

_CAUSE = "cause"


def remembered(
    path: Path | None, cause: str, compute: Callable[[], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """What a function returns, from a file where an equal call left it.

    Args:
        path: The file (safetensors); None computes and keeps nothing.
        cause: Says what the result depends on, see `cause_of`. A file made for another cause, or
            by another version, or a damaged one, is computed and written again.
        compute: Returns named tensors.

    Returns:
        The tensors.
    """
    if path is None:
        return dict(compute())
    known = _read(path, cause)
    if known is not None:
        logger.info("taken from %s", path)
        return known
    found = {name: value.contiguous() for name, value in compute().items()}
    content = save(found, metadata={_CAUSE: cause})
    write_atomically(path, lambda target: target.write_bytes(content))
    return found


def cause_of(*parts: Any) -> str:
    """The digest of what a result depends on, with the version that computed it."""
    return digest([VERSION, *parts])


def _read(path: Path, cause: str) -> dict[str, Tensor] | None:
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get(_CAUSE) != cause:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
