"""The export stage: the pruned network in formats that open without rlprune."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from rlprune.errors import RlpruneError
from rlprune.export import Handover, format_of
from rlprune.plan import Plan
from rlprune.run.job import Job

log = logging.getLogger(__name__)


def run_export(job: Job, network: nn.Module, plan: Plan) -> dict[str, Any]:
    """Write every export that was asked for.

    Args:
        job: The run.
        network: The pruned network.
        plan: Its plan.

    Returns:
        Format -> file and what is known of it, or the reason why it could not be made.
    """
    factory = job.spec.factory
    source = factory.get("path") if isinstance(factory, Mapping) else None
    result: dict[str, Any] = {}
    for name in job.spec.exports:
        handover = Handover(
            copy.deepcopy(network),
            job.example_inputs,
            job.folder.path,
            plan,
            None if source is None else str(source),
        )
        try:
            result[name] = format_of(name).write(handover)
        except RlpruneError as error:
            log.warning("%s was not written: %s", name, error)
            result[name] = {"error": str(error)}
    return result


def outputs(result: Mapping[str, Any]) -> list[str]:
    """The files that were written."""
    return [
        name
        for entry in result.values()
        if "file" in entry
        for name in entry.get("files", [entry["file"]])
    ]
