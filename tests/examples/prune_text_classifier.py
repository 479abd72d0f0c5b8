"""Train a small transformer to classify texts, and prune it to half of its operations.

    python tests/examples/prune_text_classifier.py --train TREC.train.all --test TREC.test.all
    python tests/examples/prune_text_classifier.py    # docstrings of the standard library

Files hold one ``label sentence`` a line. Without them, every first sentence of a docstring is to be
assigned to the package of the standard library that it stands in.
"""

from __future__ import annotations

import argparse
import ast
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import rlprune
from rlprune import data as data_module
from rlprune import models
from rlprune.training import FineTune, Pretrain, pretrain

PACKAGES = ("asyncio", "email", "unittest", "xml", "multiprocessing")


def docstrings() -> Iterator[str]:
    """Lines ``package sentence``."""
    for package in PACKAGES:
        for path in sorted((Path(sysconfig.get_paths()["stdlib"]) / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
                    words = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
                    if len(words) > 20:
                        yield f"{package} {words}"


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the example; returns its report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--train", type=Path, help="file of the training split")
    parser.add_argument("--test", type=Path, help="file of the test split")
    parser.add_argument("--tokenizer", help="a Hugging Face tokenizer's folder; default: words")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=60)
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of the run")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        train = asked.train
        if train is None:
            train = Path(scratch) / "docstrings"
            train.write_text("\n".join(docstrings()), encoding="utf-8")
        data = data_module.load(
            "text", train=train, test=asked.test, tokenizer=asked.tokenizer, max_length=32
        )
    print(data)
    dense = models.create(
        "text_transformer",
        num_classes=data.num_classes,
        width=asked.width,
        seed=asked.seed,
        **data.facts,
    )
    recipe = {**data.task.recipe, "epochs": asked.epochs}
    trained = pretrain(dense, data, Pretrain(**{**recipe, "lr": 1e-3}), seed=asked.seed)
    result = rlprune.prune(
        trained.model,
        data.example_inputs,
        budgets={"macs": asked.macs},
        data=data,
        evaluations=asked.evaluations,
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
