"""Train a perceptron to predict the course of diabetes from ten measurements, and prune it.

python tests/examples/prune_regression.py
python tests/examples/prune_regression.py --csv houses.csv --target price
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rlprune
from rlprune import data as data_module
from rlprune import models
from rlprune.training import FineTune, Pretrain, pretrain

RECIPE = {"optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.05, "batch_size": 32}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the example; returns its report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--csv", type=Path, help="a table; default: scikit-learn's diabetes set")
    parser.add_argument("--target", help="the column to predict; default: the last one")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--params", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of the run")
    asked = parser.parse_args(arguments)
    table = {"bundled": "diabetes"} if asked.csv is None else {"path": asked.csv}
    data = data_module.load("tabular", **table, target=asked.target)
    print(data)
    dense = models.create(
        "mlp", num_classes=data.num_classes, hidden=(64, 32), seed=asked.seed, **data.facts
    )
    training = Pretrain(**RECIPE, epochs=asked.epochs, label_smoothing=0.0)
    trained = pretrain(dense, data, training, seed=asked.seed)
    result = rlprune.prune(
        trained.model,
        data.example_inputs,
        task="regression",
        budgets={"params": asked.params},
        data=data,
        evaluations=asked.evaluations,
        finetune=FineTune(**RECIPE, epochs=asked.epochs),
        exports=(),
        out_dir=asked.out,
        seed=asked.seed,
    )
    return result.report


if __name__ == "__main__":
    from rlprune.report.rows import comparison

    for row in comparison(main()):
        print(*row, sep=" | ", file=sys.stdout)
