"""``rlprune sparsify``: zeros inside tensors, and what they are worth."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path


def sparsify(arguments: Sequence[str]) -> None:
    """``rlprune sparsify [overrides] [sparse.KEY=VALUE]``.

    Raises:
        RlpruneError: The network, the data or the options cannot be used.
    """
    from rich.console import Console

    from rlprune import data
    from rlprune.options import build
    from rlprune.report import sparsity as report
    from rlprune.report.console import show_runs
    from rlprune.run import RunSpec, dense_from_config, use_threads
    from rlprune.run.config import compose
    from rlprune.run.sparsifying import SparseSpec, Sparsifying

    parser = argparse.ArgumentParser(
        prog="rlprune sparsify",
        description="Set weights to zero, fine-tune, store, and compare with the dense network and "
        "with compacted ones of equal accuracy. Overrides are those of `rlprune`, and "
        "sparse.KEY=VALUE (configs/sparse/default.yaml).",
        epilog="example: rlprune sparsify model=vgg16 data=cifar10 sparse.sparsity=0.9 "
        "sparse.method=magnitude schedule=gradual finetune=short",
    )
    parser.add_argument("--config-dir", type=Path, help="folder with more configuration groups")
    known, overrides = parser.parse_known_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    sys.path.append(str(Path.cwd()))
    config = compose(["+sparse=default", *overrides], known.config_dir)
    use_threads(config["threads"])
    options = dict(config["sparse"])
    folder = Path(options.pop("out")).expanduser()
    asked = build(SparseSpec, options, "sparse")
    RunSpec.from_config(config)
    opened = data.load(**config["data"]).for_task(config["task"])
    dense, device = dense_from_config(config, opened)
    spec = RunSpec.from_config(config, device=str(device))
    table = Sparsifying(spec, asked, dense, opened.example_inputs, opened, folder).run()
    console = Console()
    show_runs(console, report.TERMINAL, report.terminal(table))
    console.print(f"{folder / 'sparsity.html'}", soft_wrap=True)
