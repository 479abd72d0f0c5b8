"""Runs whose networks several processes train: under ``torchrun``, or as tasks of a SLURM job."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlprune.errors import ConfigError, RlpruneError
from rlprune.options import hint

log = logging.getLogger(__name__)

LAUNCHERS = ("none", "torchrun", "slurm")


def environment_of(launcher: Mapping[str, Any]) -> dict[str, str]:
    """What tells this process from those it trains with, where its launcher has not said so yet.

    Args:
        launcher: The ``launcher`` part of a configuration.

    Raises:
        ConfigError: The launcher is unknown, or this is no task of a SLURM job.
    """
    name = launcher["name"]
    if name not in LAUNCHERS:
        raise ConfigError(f"launcher={name}: {hint(name, LAUNCHERS)}")
    if name != "slurm":
        return {}
    try:
        from submitit.helpers import TorchDistributedEnvironment

        found = TorchDistributedEnvironment()
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"launcher=slurm is for jobs of hydra/launcher=slurm_nodes ({error}); start the run "
            "with rlprune -m hydra/launcher=slurm_nodes launcher=slurm ..."
        ) from error
    return {
        "MASTER_ADDR": found.master_addr,
        "MASTER_PORT": str(found.master_port),
        "RANK": str(found.rank),
        "WORLD_SIZE": str(found.world_size),
        "LOCAL_RANK": str(found.local_rank),
    }


def under_torchrun(
    launcher: Mapping[str, Any], overrides: Sequence[str], folders: Sequence[str], folder: Path
) -> float:
    """Run one configuration under ``torchrun``.

    Args:
        launcher: The ``launcher`` part of the configuration.
        overrides: The command line of the run.
        folders: Folders with more configuration groups.
        folder: The run folder.

    Returns:
        The objective of the finished run; NaN where its report stage did not run.

    Raises:
        ConfigError: An option is out of its range.
        RlpruneError: The run failed; it has said why.
    """
    from rlprune.run.folder import RunFolder

    count, restarts = _processes(launcher["processes"]), launcher["restarts"]
    if not isinstance(restarts, int) or restarts < 0:
        raise ConfigError(f"launcher.restarts={restarts!r}: give a whole number from 0")
    target = str(folder.resolve()).replace("'", "\\'")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={count}", f"--max-restarts={restarts}", "-m", "rlprune",
        *(part for path in folders for part in ("--config-dir", path)),
        *overrides, f"hydra.run.dir='{target}'",
    ]  # fmt: skip
    log.info("%d processes: %s", count, " ".join(command[1:]))
    if subprocess.run(command, check=False).returncode:
        raise RlpruneError("the run ended with the error that its processes have told above")
    report = RunFolder(folder).record("report")
    return math.nan if report is None else float(report.result.get("objective", math.nan))


def _processes(asked: Any) -> int:
    if asked == "auto":
        import torch

        return max(torch.cuda.device_count(), 1)
    if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
        raise ConfigError(f"launcher.processes={asked!r}: give auto or a whole number from 1")
    return asked
