"""Files that are written whole or not at all: text, JSON and tensors."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlprune.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file, then rename it to ``path``.

    Args:
        path: Target; its folder is made.
        write: Called with the temporary path, which keeps the target's suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(temporary)
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    write_atomically(path, lambda target: target.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically; NaN and infinities become null."""
    write_text(path, json.dumps(plain(content), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file; None where there is none or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def require_json(path: Path, what: str) -> Any:
    """The content of a JSON file that must be there.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    content = read_json(path)
    if content is None:
        raise CheckpointError(f"{path} is missing or damaged: {what}")
    return content


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically."""
    from safetensors.torch import save

    content = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
    write_atomically(path, lambda target: target.write_bytes(save(content)))


def plain(value: Any) -> Any:
    """Reduce a value to what JSON holds: tuples to lists, NaN to null, callables to their name."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {"type": type(value).__name__, **plain(vars(value))}
    if callable(value):
        return qualified_name(value)
    if hasattr(value, "item"):
        return plain(value.item())
    return repr(value)


def qualified_name(value: Any) -> str:
    """Module and name of a callable, the same in every process."""
    inner = getattr(value, "func", value)
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    return f"{getattr(inner, '__module__', type(inner).__module__)}.{name}"


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    sha = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            sha.update(block)
    return sha.hexdigest()
