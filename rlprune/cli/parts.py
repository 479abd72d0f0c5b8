"""The limits of a front as runs of their own on the command line."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlprune.budgets import BudgetSets
from rlprune.cli.trust import sign
from rlprune.files import write_text

RECORD_FOLDER = ".hydra"


def record_parts(folder: Path, config: Mapping[str, Any], parts: BudgetSets) -> None:
    """Let ``rlprune run=FOLDER/LIMIT ...`` go on with one limit of a front.

    Every limit's folder gets the command line that a run for this limit alone would have had.

    Args:
        folder: The folder of the front, where Hydra has recorded its command line.
        config: The composed configuration.
        parts: The budgets at every limit; nothing is done where there is only one.
    """
    from omegaconf import OmegaConf

    from rlprune.cli.arguments import merged
    from rlprune.search.front import shares

    recorded = folder / RECORD_FOLDER / "overrides.yaml"
    name = parts.varied
    if name is None or not recorded.is_file():
        return
    overrides = [str(item) for item in OmegaConf.to_container(OmegaConf.load(recorded)) or []]
    node = isinstance(config["budget"][name], Mapping)
    key = f"budget.{name}.limit" if node else f"budget.{name}"
    counts = shares(config["evaluations"], config["front"]["later"], len(parts.sets))
    for label, budget, count in zip(parts.labels, parts.limits, counts, strict=True):
        limit = budget.limit
        shown = f"'{100 * limit.value:.12g}%'" if limit.relative else f"{limit.value!r}"
        own = merged(overrides, [f"{key}={shown}", f"evaluations={count}"])
        target = folder / label / RECORD_FOLDER / "overrides.yaml"
        write_text(target, OmegaConf.to_yaml(OmegaConf.create(own)))
        shutil.copyfile(folder / RECORD_FOLDER / "hydra.yaml", target.with_name("hydra.yaml"))
        sign(target.parent)
