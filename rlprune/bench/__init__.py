"""Benchmarks that others can rerun: ``rlprune bench NAME [overrides]``.

Every benchmark takes the overrides of ``rlprune`` itself (``model=``, ``data=``, ``budget=``,
``evaluator=``, ...) and options of its own under ``bench.``; results are JSON files beside a
Markdown table and a picture, and what is finished is kept when a benchmark is started again.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

BENCHMARKS = {
    "search": "agents at equal unique evaluations on one evaluator",
    "evaluation": "evaluations per second, beside masking the dense network",
    "fidelity": "which score ranks plans as fine-tuning would",
    "merging": "accuracy without fine-tuning against the share of units removed",
    "recipes": "whole pruning recipes at equal sizes, without training",
    "speed": "latency of compacted networks beside their MACs",
}
"""Names of the benchmarks, each a module of this package, and what they measure."""

OWN = {
    "compensation": "accuracy without fine-tuning by method",
    "concepts": "what pruning a code model costs it on concepts",
}
"""Benchmarks with options of their own."""

__all__ = ["BENCHMARKS", "OWN", "main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one benchmark, or write the report of finished cells again.

    Args:
        arguments: Name and overrides; None takes those of the process.

    Raises:
        RlpruneError: Whatever is wrong; says what would be right.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in OWN:
        import_module(f"rlprune.bench.{given[0]}").main(given[1:])
        return
    parser = _parser()
    known, overrides = parser.parse_known_args(given)
    _log_to_terminal()
    if known.name == "report":
        from rlprune.bench.report import write

        paths = write(Path(overrides[0]) if overrides else Path("outputs/bench/search"))
    else:
        from rlprune.run import compose

        sys.path.append(str(Path.cwd()))
        config = compose([f"+bench={known.name}", *overrides], known.config_dir)
        paths = import_module(f"rlprune.bench.{known.name}").run(config)
    for path in paths:
        if path.suffix == ".md":
            sys.stdout.write(path.read_text(encoding="utf-8") + "\n")
    sys.stdout.write("".join(f"{path}\n" for path in paths))


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:<14}{text}" for name, text in BENCHMARKS.items())
    others = "\n".join(f"  {name:<14}{text}; has options of its own" for name, text in OWN.items())
    parser = argparse.ArgumentParser(
        prog="rlprune bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(
            "Rerun a benchmark; what is finished is kept.\n\n"
            f"{listed}\n  report        [FOLDER] table and picture of finished search cells\n"
            f"{others}\n\n"
            "Overrides are those of `rlprune`, and bench.KEY=VALUE (configs/bench/NAME.yaml)."
        ),
        epilog="example: rlprune bench search model=resnet56 data=cifar10 budget=macs_50",
    )
    parser.add_argument("name", choices=[*BENCHMARKS, "report", *OWN])
    parser.add_argument("--config-dir", type=Path, help="folder with more configuration groups")
    return parser


def _log_to_terminal() -> None:
    """Show what happens, unless somebody configured logging already."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
