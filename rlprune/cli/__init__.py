"""The command line: ``rlprune`` and the commands beside it."""

from __future__ import annotations

import os
import sys
from typing import Any

COMMANDS = {
    "analyze": "rlprune.cli.analyze:analyze",
    "report": "rlprune.cli.commands:report",
    "discover": "rlprune.cli.commands:discover",
    "bench": "rlprune.bench:main",
    "sparsify": "rlprune.cli.sparsify:sparsify",
    "vocab": "rlprune.cli.vocab:vocab",
    "zoo": "rlprune.zoo.__main__:main",
}
"""Commands beside a run, and where they live (imported when asked for)."""


def main() -> None:
    """Entry point of the ``rlprune`` command; exits with 1 on an error and says what to do."""
    from rlprune.errors import RlpruneError

    arguments = sys.argv[1:]
    try:
        if arguments and arguments[0] in COMMANDS:
            from importlib import import_module

            module, _, function = COMMANDS[arguments[0]].partition(":")
            sys.exit(getattr(import_module(module), function)(arguments[1:]))
        elif arguments == ["--version"]:
            import rlprune

            sys.stdout.write(f"rlprune {rlprune.__version__}\n")
        else:
            _run(arguments)
    except RlpruneError as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(1)


def _run(arguments: list[str]) -> None:
    """One command line of runs, in the leader of the processes that train together."""
    from contextlib import nullcontext

    from rlprune.cli.app import launch
    from rlprune.cli.arguments import continued, listed, own_agent, own_model

    together: Any = nullcontext(True)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # torchrun has started this process
        from rlprune.training import team

        together = team()
    with together as leader:
        if leader:
            launch(own_model(own_agent(listed(continued(arguments)))))
