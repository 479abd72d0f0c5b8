"""The export stage: the pruned network in formats that open without rlprune."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from rlprune.run.job import Job


def run_export(job: Job, network: nn.Module) -> dict[str, Any]:
    """Write every export that was asked for.

    Args:
        job: The run.
        network: The pruned network.

    Returns:
        Format -> file and what is known of it, or the reason why it could not be made.
    """
    from rlprune.export import export

    return {
        name: export(copy.deepcopy(network), job.example_inputs, job.folder.path, name)
        for name in job.spec.exports
    }


def outputs(result: Mapping[str, Any]) -> list[str]:
    """The files that were written."""
    return [entry["file"] for entry in result.values() if "file" in entry]
