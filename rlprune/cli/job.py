"""One configured run: from a composed configuration to a finished folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlprune.cli.parts import record_parts
from rlprune.cli.vocab import with_vocabulary
from rlprune.errors import ConfigError
from rlprune.options import hint

if TYPE_CHECKING:
    from rlprune.run import PruneResult

log = logging.getLogger(__name__)

STAGES = ("pretrain", "search", "finetune", "export", "report")


def run(
    config: Mapping[str, Any],
    folder: Path,
    *,
    redo: bool,
    record: Callable[[], object] = lambda: None,
) -> PruneResult | None:
    """Run the stages that a configuration asks for.

    Args:
        config: The composed configuration, resolved to plain containers.
        folder: The run folder.
        redo: Run stages again whose settings differ from those recorded.
        record: Writes the command line into the folder; called before anything is trained where
            the folder is new, and where it is not, once it is found to belong to this run.

    Returns:
        The result; None when only the dense network was asked for.

    Raises:
        RlpruneError: Whatever is wrong; says what, where, and what would be right.
    """
    from rlprune import data, models
    from rlprune.callbacks import resolve
    from rlprune.run import (
        RUN_FILE,
        RunSpec,
        dense_from_config,
        factory_of,
        launch,
        require_measurable,
        use_threads,
    )

    stage = config["stage"]
    if stage not in ("all", *STAGES):
        raise ConfigError(f"stage={stage}: {hint(stage, ('all', *STAGES))}")
    use_threads(config["threads"])
    asked = RunSpec.from_config(config)
    told = resolve(config.get("callbacks"))
    whole, given = config["model"], config
    config = with_vocabulary(config, folder)
    if not (folder / RUN_FILE).exists():
        record()
    opened = data.load(**config["data"]).for_task(config["task"])
    log.info("%r", opened)
    dense, device = dense_from_config(
        config,
        opened,
        before_training=lambda network: require_measurable(asked, network, opened.example_inputs),
    )
    if stage == "pretrain":
        return None
    if config["model"] is not whole:
        from rlprune.integrations.hf.pipeline import absolute

        came = models.create(**factory_of(whole, opened))
        budgets = RunSpec.from_config(config).budgets
        config = {**config, "budget": absolute(budgets, came, opened.example_inputs)}
    options = {"out_dir": folder, "redo": redo, "factory": factory_of(config["model"], opened)}
    spec = RunSpec.from_config(config, device=str(device), **options)

    def on_start() -> None:
        record()
        record_parts(folder, given, spec.asked())

    return launch(
        spec, dense, opened.example_inputs, data=opened, callbacks=told, on_start=on_start
    )
