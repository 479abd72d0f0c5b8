"""One configured run: from a composed configuration to a finished folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlprune.cli.parts import record_parts
from rlprune.errors import ConfigError

if TYPE_CHECKING:
    from rlprune.run import PruneResult

log = logging.getLogger(__name__)

STAGES = ("pretrain", "search", "finetune", "export", "report")


def run(config: Mapping[str, Any], folder: Path, *, redo: bool) -> PruneResult | None:
    """Run the stages that a configuration asks for.

    Args:
        config: The composed configuration, resolved to plain containers.
        folder: The run folder.
        redo: Run stages again whose settings differ from those recorded.

    Returns:
        The result; None when only the dense network was asked for.

    Raises:
        RlpruneError: Whatever is wrong; says what, where, and what would be right.
    """
    import torch

    import rlprune
    from rlprune import budgets, data
    from rlprune.run.dense import dense_network, factory_of
    from rlprune.run.job import resolve_device
    from rlprune.training import FineTune, Pretrain

    stage = config["stage"]
    if stage != "all" and stage not in STAGES:
        raise ConfigError(f"stage={stage}: choose all, or one of {', '.join(STAGES)}")
    if config["threads"] is not None:
        torch.set_num_threads(int(config["threads"]))
    asked = {name: value for name, value in config["budget"].items() if value is not None}
    parts = budgets.sets(asked)
    recipe, tuning = Pretrain.from_dict(config["pretrain"]), FineTune.from_dict(config["finetune"])
    opened = data.load(**config["data"])
    log.info("%r", opened)
    device = resolve_device(config["device"], torch.nn.Identity())
    dense = dense_network(
        config["model"],
        opened,
        recipe,
        seed=config["dense_seed"],
        folder=Path(config["pretrained_dir"]),
        device=device,
    )
    if stage == "pretrain":
        return None
    record_parts(folder, config, parts)
    return rlprune.prune(
        dense,
        opened.example_inputs,
        budgets=asked,
        data=opened,
        agent=config["agent"],
        evaluations=config["evaluations"],
        front_later=config["front"]["later"],
        importance=criterion(config["importance"]),
        compensation=config["compensation"],
        evaluator=config["evaluator"],
        finetune=tuning,
        device=str(device),
        seed=config["seed"],
        out_dir=folder,
        factory=factory_of(config["model"], opened),
        exports=config["export"],
        latency=config["latency"],
        stages=STAGES[1:] if stage == "all" else (stage,),
        redo=redo,
        **config["structure"],
    )


def criterion(importance: Mapping[str, Any] | str) -> Any:
    """The importance criterion of a configuration: a name, or a function by its dotted path."""
    from rlprune.locate import locate

    if isinstance(importance, str):
        chosen: Any = importance
    else:
        chosen = importance.get("_target_", importance.get("criterion"))
    if chosen is None:
        raise ConfigError("importance: give criterion=a name, or _target_=a function's dotted path")
    return locate(chosen) if "." in chosen else chosen
