"""What a training leaves on disk after every epoch, and the rows of its history."""

from __future__ import annotations

import csv
import math
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlprune.errors import CheckpointError, TrainingError
from rlprune.identity import digest

FILE = "last.pt"


@dataclass(frozen=True)
class EpochRecord:
    """One row of a training's history; row 0 is the network before training.

    Attributes:
        epoch: Epochs done.
        lr: Learning rate of the epoch's last step.
        train: The task's metrics on the augmented training samples while they were trained on, and
            ``loss``, the mean of what was minimised; empty in row 0.
        holdout: Metrics and loss on the held-out samples.
        seconds: Wall time of the epoch with its held-out measurement.
        samples_per_second: Training samples over the time spent training on them, 0 in row 0.
    """

    epoch: int
    lr: float
    train: dict[str, float]
    holdout: dict[str, float]
    seconds: float
    samples_per_second: float

    def flat(self) -> dict[str, float]:
        """One number per column: ``train_<metric>`` and ``holdout_<metric>`` among them.

        Columns are the same for every row of a history; what is not known is NaN.
        """
        trained = {f"train_{key}": self.train.get(key, math.nan) for key in self.holdout}
        held = {f"holdout_{key}": value for key, value in self.holdout.items()}
        ends = {"seconds": self.seconds, "samples_per_second": self.samples_per_second}
        return {"epoch": self.epoch, "lr": self.lr, **trained, **held, **ends}


History = Sequence[EpochRecord]
AfterEpoch = Callable[[History], None]
"""Called with the whole history after every epoch."""


class Checkpoints:
    """Writes and reads the state of a training, atomically.

    Args:
        folder: Where the file lies; None keeps nothing.
        identity: What makes two trainings the same: configuration, seed, data, initial weights.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, identity: Mapping[str, str]) -> None:
        self.path = None if folder is None else Path(folder) / FILE
        self.identity = dict(identity)

    def load(self) -> dict[str, Any] | None:
        """The state after the last finished epoch, or None when there is none.

        Raises:
            CheckpointError: The file cannot be read.
            TrainingError: The file belongs to another training.
        """
        if self.path is None or not self.path.is_file():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.path} cannot be read ({error}); delete it to train from the start"
            ) from error
        found = state.get("identity", {})
        differ = [key for key, value in self.identity.items() if found.get(key) != value]
        if differ:
            raise TrainingError(
                f"{self.path} records a training that differs in {', '.join(differ)}; use another "
                "folder, or delete the file to train from the start"
            )
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Write ``state`` to a temporary file and rename it into place."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            torch.save({"identity": self.identity, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)


def weights_digest(model: nn.Module | None) -> str:
    """Digest of a network's parameter and buffer names, types, shapes and values."""
    return digest(None if model is None else dict(model.state_dict()))


class CsvHistory:
    """A callback that keeps the history as a CSV file.

    Args:
        path: The file; rewritten as a whole after every epoch, so a resumed training repeats none.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __call__(self, history: History) -> None:
        """Write all rows."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            rows = [row.flat() for row in history]
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self.path)


class TensorBoardHistory:
    """A callback that writes the newest row as TensorBoard scalars.

    Args:
        folder: TensorBoard's log folder.
        prefix: Put before every name, such as ``finetune``.
    """

    def __init__(self, folder: str | os.PathLike[str], prefix: str = "training") -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.prefix = prefix
        self.writer = SummaryWriter(str(folder))

    def __call__(self, history: History) -> None:
        """Write ``<prefix>/<field>`` at the epoch's number."""
        row = history[-1].flat()
        step = int(row.pop("epoch"))
        for name, value in row.items():
            if value == value:
                self.writer.add_scalar(f"{self.prefix}/{name}", value, step)
        self.writer.flush()
