"""Fine-tunes on digits in processes that kill themselves, each in the fourth step of an epoch."""

from __future__ import annotations

import importlib
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


def in_a_process(folder: str, optimizer: str, deadly: int | None) -> int:
    """Train in a process of its own, forked before any computation; what it died of."""
    process = os.fork()
    if process == 0:
        result = train(folder, optimizer, deadly)
        models.save_weights(result.model, os.path.join(folder, "final.safetensors"))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main() -> None:
    """Arguments: a folder, an optimizer, the deadly epochs; a last process ends by itself."""
    folder, optimizer, *epochs = sys.argv[1:]
    data_module.load("digits")  # every process would import as much by itself
    importlib.import_module("torch._dynamo")
    for deadly in [*map(int, epochs), None]:
        before = os.path.exists(os.path.join(folder, "final.safetensors"))
        print(in_a_process(folder, optimizer, deadly), before)


if __name__ == "__main__":
    main()
