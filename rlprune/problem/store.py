"""Results on disk, one line each, so that an interrupted search replays instead of repeating."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rlprune.errors import CheckpointError
from rlprune.identity import digest

logger = logging.getLogger(__name__)

_VERSION = 2


class Store:
    """An append-only JSONL file of results, keyed by widths.

    The first line holds the identity of what was evaluated and the reference values of
    measured budgets. Every result is flushed to the disk before it is used; a line cut short by a
    kill is dropped when the file is opened again.

    Args:
        path: The file; None keeps results in memory only.
        causes: What the results depend on, by name (see :mod:`rlprune.identity`).
        reference: Values a resumed run must work with, stored in a new file.

    Attributes:
        reference: The stored values (those given, for a new file).

    Raises:
        CheckpointError: The file belongs to another network, budget or setting, or is no store.
    """

    def __init__(
        self, path: Path | None, causes: Mapping[str, Any], reference: dict[str, Any]
    ) -> None:
        self.reference = reference
        self._results: dict[tuple[str, tuple[int, ...]], Any] = {}
        self._file: TextIO | None = None
        if path is None:
            return
        path, identity = Path(path), {name: digest(cause) for name, cause in causes.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        records, size = _read(path)
        if records:
            self._check(path, records[0], identity)
            self.reference = records[0]["reference"]
            for record in records[1:]:
                key = (str(record["kind"]), tuple(int(width) for width in record["widths"]))
                self._results[key] = record["result"]
            logger.info("%d results found in %s", len(self._results), path)
        self._file = path.open("a", encoding="utf-8")
        self._file.truncate(size)
        if not records:
            self._append({"version": _VERSION, "identity": identity, "reference": self.reference})

    def __len__(self) -> int:
        return len(self._results)

    def get(self, kind: str, widths: Sequence[int]) -> Any:
        """The stored result of one kind for these widths, or None."""
        return self._results.get((kind, tuple(widths)))

    def all(self, kind: str) -> dict[tuple[int, ...], Any]:
        """All stored results of one kind by widths, oldest first."""
        return {widths: result for (of, widths), result in self._results.items() if of == kind}

    def put(self, kind: str, widths: Sequence[int], result: Any) -> None:
        """Store a result; it is on disk when this returns."""
        self._results[(kind, tuple(widths))] = result
        self._append({"kind": kind, "widths": list(widths), "result": result})

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, record: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(record, separators=(",", ":")) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    @staticmethod
    def _check(path: Path, header: dict[str, Any], identity: dict[str, str]) -> None:
        stored = header.get("identity")
        if "fingerprint" in header:
            raise CheckpointError(
                f"{path} was written by an older rlprune, which did not record all that its "
                "evaluations depend on; use another output folder, or delete the file"
            )
        if not isinstance(stored, dict) or header.get("version") != _VERSION:
            raise CheckpointError(f"{path} is not a store of evaluations; move it away")
        differing = [key for key in identity if stored.get(key) != identity[key]]
        if differing:
            raise CheckpointError(
                f"{path} holds evaluations of another problem: {', '.join(differing)} changed "
                "since; use another output folder, or delete the file to start over"
            )


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Complete records of the file, and how many bytes they take."""
    if not path.exists():
        return [], 0
    records: list[dict[str, Any]] = []
    size = 0
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            logger.warning("%s: the last line is incomplete and was dropped", path)
            break
        try:
            record = json.loads(line)
        except ValueError as error:
            raise CheckpointError(
                f"{path}, line {number} is not JSON ({error}); delete it and what follows"
            ) from error
        records.append(record)
        size += len(line)
    return records, size
