from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from rlprune import Data, FineTune, data, models, training

FACTORY = {"name": "digits_cnn", "num_classes": 10, "in_channels": 1, "width": 8}


@pytest.fixture(scope="session")
def digits() -> Data:
    return data.load("digits")


@pytest.fixture(scope="session")
def dense(digits: Data) -> nn.Module:
    """A small network that knows its digits."""
    network = models.create(**FACTORY, seed=0)
    recipe = training.Pretrain(epochs=8, batch_size=64)
    return training.pretrain(network, digits, recipe, progress=False).model


@pytest.fixture
def settings(digits: Data) -> dict[str, Any]:
    """Arguments of a run that takes a second or two."""
    return {
        "data": digits,
        "budgets": {"macs": 0.6},
        "agent": "random",
        "evaluations": 6,
        "finetune": FineTune(epochs=2, lr=0.02),
        "exports": (),
        "latency": {"repeats": 3},
        "factory": FACTORY,
        "progress": False,
    }
