"""The command line: ``rlprune``, ``rlprune report`` and ``rlprune discover``."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Entry point of the ``rlprune`` command; exits with 1 on an error and says what to do."""
    from rlprune.errors import RlpruneError

    arguments = sys.argv[1:]
    try:
        if arguments and arguments[0] in ("report", "discover"):
            from rlprune.cli import commands

            getattr(commands, arguments[0])(arguments[1:])
        elif arguments == ["--version"]:
            import rlprune

            sys.stdout.write(f"rlprune {rlprune.__version__}\n")
        else:
            from rlprune.cli.app import launch
            from rlprune.cli.arguments import continued

            launch(continued(arguments))
    except RlpruneError as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(1)
