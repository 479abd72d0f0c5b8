"""The commands beside a run: ``rlprune report`` and ``rlprune discover``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def report(arguments: Sequence[str]) -> None:
    """``rlprune report FOLDER``: all runs below a folder in one table and one picture.

    Raises:
        ConfigError: There is no run.
    """
    from rich.console import Console

    from rlprune.report import front, sweep
    from rlprune.report.console import show_runs

    parser = argparse.ArgumentParser(
        prog="rlprune report",
        description="Gather the runs below a folder into sweep.csv, sweep.png and sweep.html; "
        "write the tables of fronts below it anew.",
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("outputs"))
    folder = parser.parse_args(arguments).folder
    fronts = sorted(path.parent for path in folder.rglob(front.FILE))
    for path in fronts:
        front.refresh(path)
    rows, unfinished = sweep.collect(folder)
    console = Console()
    if rows:
        head, lines = sweep.settings(rows)
        if lines:
            show_runs(console, head, lines)
        shown = sweep.terminal(rows)
        show_runs(console, shown, sweep.cells(rows, shown))
        for path in sweep.write(folder, rows):
            console.print(f"{path}", soft_wrap=True)
    for path in fronts:
        console.print(f"{path / 'front.html'}", soft_wrap=True)
    for path in unfinished:
        console.print(f"unfinished: {path}  (rlprune run={path})", soft_wrap=True)


def discover(arguments: Sequence[str]) -> None:
    """``rlprune discover model=... data=...``: what can be pruned, and why not the rest.

    Raises:
        RlpruneError: The network cannot be built or traced.
    """
    from rich.console import Console

    import rlprune
    from rlprune import data, models
    from rlprune.options import build
    from rlprune.report.console import show_groups
    from rlprune.run.dense import factory_of
    from rlprune.run.spec import StructureSpec

    parser = argparse.ArgumentParser(
        prog="rlprune discover",
        description="Show every group of units of a network. Overrides are those of `rlprune`.",
    )
    parser.add_argument("--config-dir", type=Path, help="folder with more configuration groups")
    parser.add_argument(
        "--shape",
        help="shape of one input without the batch, as 3x224x224, in place of data; without either "
        "an image of a size that the network takes",
    )
    known, overrides = parser.parse_known_args(arguments)
    from rlprune.cli.arguments import own_model
    from rlprune.run.config import compose

    config = compose(own_model(overrides), known.config_dir)
    sys.path.append(str(Path.cwd()))
    if known.shape:
        import torch

        options = {k: v for k, v in config["model"].items() if k not in ("checkpoint", "weights")}
        model = models.create(**options)
        inputs = torch.zeros(1, *_shape(known.shape))
    else:
        opened = data.load(**config["data"]).for_task(config["task"])
        model = models.create(**factory_of(config["model"], opened))
        inputs = opened.example_inputs
        if not any(item.lstrip("+~").startswith(("data=", "data.")) for item in overrides):
            inputs = _taken(model, inputs)
    structure = build(StructureSpec, config["structure"], "structure")
    groups = rlprune.discover(model.eval(), inputs, **structure.options())
    show_groups(Console(), groups)


def _taken(model: nn.Module, inputs: Any) -> Any:
    """The inputs, or where the network does not take them an image of a usual size."""
    import torch

    from rlprune.inputs import call_safely
    from rlprune.modes import evaluating

    for tried in (inputs, torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 224, 224)):
        try:
            with torch.no_grad(), evaluating(model):
                call_safely(model, tried)
        except Exception:
            continue
        if tried is not inputs:
            shape = "x".join(map(str, tried.shape[1:]))
            sys.stderr.write(f"for an image of {shape}; others with --shape or data=\n")
        return tried
    return inputs


def _shape(text: str) -> tuple[int, ...]:
    from rlprune.errors import ConfigError

    try:
        return tuple(int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise ConfigError(f"--shape {text}: write it as 3x224x224") from error
