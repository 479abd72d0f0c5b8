"""Trains on digits in the team that torchrun started: folder, epochs, kill= an epoch."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlprune import data as data_module
from rlprune import models
from rlprune.data import Data
from rlprune.training import FineTune, TrainResult, finetune, team


def network(width: int, unused: bool) -> nn.Module:
    net = models.create("digits_cnn", seed=1, width=width)
    if unused:
        net.spare = nn.Linear(3, 3)
        nn.init.ones_(net.spare.weight)
        nn.init.zeros_(net.spare.bias)
    return net


def digits() -> Data:
    data = data_module.load("digits")
    images = torch.cat([x for x, _ in data.train_batches(0, 50)])
    labels = torch.cat([y for _, y in data.train_batches(0, 50)])
    return Data((images[:500], labels[:500]), holdout=200, augmentation="crop", num_classes=10)


def train(folder: Path | None, epochs: int, data: Data, *, unused: bool = False) -> TrainResult:
    config = FineTune(
        epochs=epochs, batch_size=75, lr=0.05, schedule="constant", warmup=0.0, grad_clip=1.0,
        autocast=False, distill_alpha=0.2,
    )  # fmt: skip

    return finetune(
        network(6, unused), network(10, False), data, config, seed=3, checkpoint_dir=folder
    )


def dying(data: Data, folder: Path, epoch: int) -> Data:
    """Data that kills the last process at the second batch of an epoch, once."""
    original, mark = data.train_batches, folder / f"killed-{epoch}"

    def train_batches(number: int, *args: Any, **options: Any) -> Iterator[Any]:
        for step, batch in enumerate(original(number, *args, **options)):
            rank, count = options.get("share", (0, 1))
            if (number, step) == (epoch, 1) and rank == count - 1 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    data.train_batches = train_batches  # type: ignore[method-assign]
    return data


def main() -> None:
    folder, epochs = Path(sys.argv[1]), int(sys.argv[2])
    options = dict(item.split("=") for item in sys.argv[3:])
    torch.set_num_threads(1)
    with team() as leader:
        if leader:
            data = digits()
            if "kill" in options:
                data = dying(data, folder, int(options["kill"]))
            found = train(folder, epochs, data, unused=True)
            rows = [row.flat() for row in found.history]
            (folder / "history.json").write_text(json.dumps(rows), encoding="utf-8")
            models.save_weights(found.model, folder / "final.safetensors")


if __name__ == "__main__":
    main()
