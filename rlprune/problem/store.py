"""Results on disk, one line each, so that an interrupted search replays instead of repeating."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from rlprune.errors import CheckpointError
from rlprune.identity import digest
from rlprune.plan import Plan

logger = logging.getLogger(__name__)

_VERSION = 3


class Store:
    """An append-only JSONL file of results, keyed by the digest of a plan.

    A plan's units are written where it first comes up: a bit for every unit, base64.

    The first line holds the identity of what was evaluated and the reference values of
    measured budgets. Every result is flushed to the disk before it is used; a line cut short by a
    kill is dropped when the file is opened again.

    Args:
        path: The file; None keeps results in memory only.
        causes: What the results depend on, by name (see :mod:`rlprune.identity`).
        reference: Values a resumed run must work with, stored in a new file.
        dense: Dense width of every group that plans decide about.

    Attributes:
        reference: The stored values (those given, for a new file).
        folder: Where the file lies, or None.

    Raises:
        CheckpointError: The file belongs to another network, budget or setting, or is no store.
    """

    def __init__(
        self,
        path: Path | None,
        causes: Mapping[str, Any],
        reference: dict[str, Any],
        dense: Mapping[str, int],
    ) -> None:
        self.reference = reference
        self._results: dict[tuple[str, str], Any] = {}
        self._plans: dict[str, Plan] = {}
        self._file: TextIO | None = None
        self.folder = None if path is None else Path(path).parent
        if path is None:
            return
        path, identity = Path(path), {name: digest(cause) for name, cause in causes.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        records, size = _read(path)
        if records:
            self._check(path, records[0], identity)
            self.reference = records[0]["reference"]
            for record in records[1:]:
                self._results[record["kind"], record["plan"]] = record["result"]
                if "keep" in record:
                    dense = records[0]["groups"]
                    self._plans[record["plan"]] = _unpacked(record["keep"], dense)
            logger.info("%d results found in %s", len(self._results), path)
        self._file = path.open("a", encoding="utf-8")
        self._file.truncate(size)
        if not records:
            self._append(
                {
                    "version": _VERSION,
                    "identity": identity,
                    "reference": self.reference,
                    "groups": dict(dense),
                }
            )

    def __len__(self) -> int:
        return len(self._results)

    def get(self, kind: str, plan: Plan) -> Any:
        """The stored result of one kind for a plan, or None."""
        return self._results.get((kind, plan.digest))

    def all(self, kind: str) -> dict[Plan, Any]:
        """All stored results of one kind by plan, oldest first."""
        return {self._plans[key]: found for (of, key), found in self._results.items() if of == kind}

    def put(self, kind: str, plan: Plan, result: Any) -> None:
        """Store a result; it is on disk when this returns."""
        self._results[kind, plan.digest] = result
        record = {"kind": kind, "plan": plan.digest}
        if plan.digest not in self._plans:
            self._plans[plan.digest] = plan
            record["keep"] = _packed(plan)
        self._append({**record, "result": result})

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
        if "fingerprint" in header or header.get("version", _VERSION) < _VERSION:
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


def _packed(plan: Plan) -> str:
    """A plan as text: a bit for every unit of every group."""
    bits = np.concatenate([mask.numpy() for mask in plan.masks().values()])
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def _unpacked(text: str, dense: Mapping[str, int]) -> Plan:
    """The plan of a packed text."""
    raw = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    ends = np.cumsum(list(dense.values()))
    bits = np.unpackbits(raw, count=int(ends[-1]))
    parts = np.split(bits, ends[:-1])
    keep = {n: tuple(np.flatnonzero(p).tolist()) for n, p in zip(dense, parts, strict=True)}
    return Plan(keep, dict(dense))
