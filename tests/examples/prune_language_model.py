"""Train a small language model on the bytes of Python's standard library, and prune it.

python tests/examples/prune_language_model.py
python tests/examples/prune_language_model.py --text FOLDER --pattern "*.go"
"""

from __future__ import annotations

import argparse
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rlprune
from rlprune import data as data_module
from rlprune import models
from rlprune.training import FineTune, Pretrain, pretrain


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the example; returns its report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    parser.add_argument("--text", type=Path, default=stdlib / "asyncio", help="file or folder")
    parser.add_argument("--pattern", default="*.py", help="which files of a folder")
    parser.add_argument("--limit", type=int, help="most bytes of text")
    parser.add_argument("--length", type=int, default=128, help="bytes per block")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=60)
    parser.add_argument("--params", type=float, default=0.5)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of the run")
    asked = parser.parse_args(arguments)
    data = data_module.load(
        "text_file",
        train=asked.text,
        pattern=asked.pattern,
        limit=asked.limit,
        length=asked.length,
    )
    print(data)
    dense = models.create("causal_transformer", width=asked.width, seed=asked.seed, **data.facts)
    recipe = {**data.task.recipe, "epochs": asked.epochs}
    own = {key: value for key, value in recipe.items() if key != "temperature"}
    trained = pretrain(dense, data, Pretrain(**{**own, "lr": 2e-3}), seed=asked.seed)
    result = rlprune.prune(
        trained.model,
        data.example_inputs,
        budgets={"params": asked.params},
        data=data,
        evaluations=asked.evaluations,
        evaluator={"images": 64, "rescore_images": 256, "calibration_images": 128},
        finetune=FineTune(**recipe),
        exports=(),
        out_dir=asked.out,
        seed=asked.seed,
    )
    return result.report


if __name__ == "__main__":
    from rlprune.report.rows import comparison

    for row in comparison(main()):
        print(*row, sep=" | ", file=sys.stdout)
