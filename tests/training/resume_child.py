"""Fine-tunes on digits; a third argument is the epoch in whose fourth step it kills itself."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

from torch import nn

from rlprune import data as data_module
from rlprune import models
from rlprune.training import FineTune, TrainResult, finetune


def network(width: int) -> nn.Module:
    net = models.create("digits_cnn", seed=1, width=width)
    net.fc = nn.Sequential(nn.Dropout(0.3), net.fc)
    return net


def train(folder: str | None, optimizer: str, deadly: int | None = None) -> TrainResult:
    data = data_module.load("digits")
    original = data.train_batches

    def train_batches(epoch: int, *args, **options) -> Iterator:
        for step, batch in enumerate(original(epoch, *args, **options)):
            if epoch == deadly and step == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    data.train_batches = train_batches
    config = FineTune(epochs=4, batch_size=192, optimizer=optimizer, lr=0.01)
    return finetune(network(8), network(12), data, config, seed=3, checkpoint_dir=folder)


def main() -> None:
    folder, optimizer = sys.argv[1:3]
    deadly = int(sys.argv[3]) if len(sys.argv) > 3 else None
    result = train(folder, optimizer, deadly)
    models.save_weights(result.model, os.path.join(folder, "final.safetensors"))


if __name__ == "__main__":
    main()
