"""The folder of a run: atomic files, and a record for every stage that is finished."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlprune.errors import ConfigError
from rlprune.files import file_digest, read_json, write_json
from rlprune.locks import locked

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

    def drop(self, stage: str) -> None:
        """Remove the files of a stage and its record: they belong to what is no more."""
        record = read_json(self._record_path(stage)) or {}
        self.forget(stage)
        for name in record.get("outputs", {}):
            (self.path / name).unlink(missing_ok=True)

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes out.

        Raises:
            ConfigError: On entering, if another process works in this folder.
        """
        return locked(self.path / ".lock", wait=False)

    def forget(self, stage: str) -> None:
        """Drop the record of a stage, which makes it run again."""
        self._record_path(stage).unlink(missing_ok=True)

    def _record_path(self, stage: str) -> Path:
        return self.path / "stages" / f"{stage}.json"
