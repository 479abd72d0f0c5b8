"""The folder of a run: atomic files, and a record for every stage that is finished."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rlprune.errors import CheckpointError, ConfigError
from rlprune.files import write_atomically

STAGES = ("search", "finetune", "export", "report")
"""The stages of a run, in order; each reads what the ones before it wrote."""


@dataclass(frozen=True)
class StageRecord:
    """What a finished stage left behind.

    Attributes:
        stage: Its name.
        settings: Everything its result depends on, as JSON.
        outputs: File names in the run folder, with the SHA-256 of each.
        result: Numbers that later stages need.
        seconds: Wall time.
    """

    stage: str
    settings: dict[str, Any]
    outputs: dict[str, str]
    result: dict[str, Any]
    seconds: float


class RunFolder:
    """Files of one run.

    A stage writes its files atomically and its record last, so a record vouches for complete
    files whenever the process was killed.

    Args:
        path: The folder; made when missing.

    Raises:
        ConfigError: The path is a file, or cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"the run folder {self.path} cannot be made: {error}") from error

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def record(self, stage: str) -> StageRecord | None:
        """The record of a stage whose files are all there and unchanged, or None."""
        content = read_json(self._record_path(stage))
        if content is None:
            return None
        try:
            record = StageRecord(**content)
        except TypeError:
            return None
        for name, digest in record.outputs.items():
            file = self.path / name
            if not file.is_file() or file_digest(file) != digest:
                return None
        return record

    def finish(
        self,
        stage: str,
        settings: Mapping[str, Any],
        outputs: Sequence[str],
        result: Mapping[str, Any],
        seconds: float,
    ) -> StageRecord:
        """Record a finished stage.

        Args:
            stage: Its name.
            settings: What its result depends on.
            outputs: Names of the files that it wrote.
            result: Numbers for later stages, JSON-serialisable.
            seconds: Wall time.

        Returns:
            The record, as later read back.
        """
        digests = {name: file_digest(self.path / name) for name in outputs}
        record = StageRecord(stage, dict(settings), digests, dict(result), seconds)
        write_json(self._record_path(stage), vars(record))
        return record

    def forget(self, stage: str) -> None:
        """Drop the record of a stage, which makes it run again."""
        self._record_path(stage).unlink(missing_ok=True)

    def _record_path(self, stage: str) -> Path:
        return self.path / "stages" / f"{stage}.json"


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
