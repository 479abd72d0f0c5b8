"""Vocabulary and structure in one call: from a folder of the hub's layout to a smaller one."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from rlprune.budgets import Budget, sets
from rlprune.budgets.limits import Limit
from rlprune.errors import ConfigError
from rlprune.files import write_json
from rlprune.integrations.hf.exporting import FOLDER
from rlprune.integrations.hf.expression import follow
from rlprune.integrations.hf.loading import load
from rlprune.integrations.hf.vocabulary import trimmed, vocabulary_of, with_vocabulary
from rlprune.run.result import PruneResult

SIZES = ("tokens", "disk_bytes")


def prune(
    path: str | Path,
    out_dir: str | Path,
    *,
    data: Mapping[str, Any],
    budgets: Mapping[str, Any],
    corpus: str | Path | Iterable[str] | None = None,
    min_count: int = 1,
    architecture: str | None = None,
    exports: Sequence[str] = ("hf_code",),
    progress: bool | None = None,
    **options: Any,
) -> PruneResult:
    """Trim the vocabulary of a network, then prune its heads, neurons and layers.

    The limits of ``budgets`` that are shares are shares of the network as it came, so that a
    smaller vocabulary counts towards ``params``, ``bytes`` and ``disk_bytes``.

    Args:
        path: a folder of the hub's layout, or a name on the hub.
        out_dir: the run folder. The result goes to ``pruned/`` in it: model, tokenizer,
            ``plan.json`` (with the token map) and ``report.json`` in the hub's layout.
        data: arguments of `rlprune.data.load`, such as ``{"name": "text", "train": FILE}``; the
            tokenizer is filled in.
        budgets: name -> limit, as for `rlprune.prune`.
        corpus: text whose tokens stay (see `trim_vocabulary`); None keeps the whole vocabulary.
        min_count: fewest occurrences of a token that stays.
        architecture: class of transformers; None takes the one that the folder names.
        exports: as for `rlprune.prune`; ``hf`` for a result that plain transformers loads.
        progress: draw bars; None draws them on a terminal.
        **options: passed on to `rlprune.prune` (``task``, ``evaluations``, ``finetune``, ...).

    Returns:
        The result; its plan holds the token map, its report a part ``vocabulary``.

    Raises:
        ConfigError: there is no tokenizer.
        RlpruneError: whatever `load`, `trim_vocabulary` and `rlprune.prune` raise.
    """
    import torch

    import rlprune
    from rlprune import data as data_module

    out = Path(out_dir).expanduser()
    source: str | Path = path
    if corpus is not None:
        source = trimmed(path, out, corpus, min_count, architecture=architecture, progress=progress)
    model, tokenizer = load(source, architecture=architecture, dtype=torch.float32)
    if tokenizer is None:
        raise ConfigError(f"{path} holds no tokenizer; prune the network with rlprune.prune")
    opened = data_module.load(**{**data, "tokenizer": str(source)})
    if corpus is not None:
        dense, _ = load(path, architecture=architecture, dtype=torch.float32)
        budgets = absolute(budgets, dense, opened.example_inputs)
        del dense
    factory = {"_target_": "rlprune.integrations.hf.build", "path": str(source)}
    result = rlprune.prune(
        model,
        opened.example_inputs,
        budgets=budgets,
        data=opened,
        out_dir=out,
        factory=factory if architecture is None else {**factory, "architecture": architecture},
        exports=exports,
        progress=progress,
        **options,
    )
    plan = with_vocabulary(result.plan, str(source))
    known = vocabulary_of(source) or {}
    report = {**result.report, "vocabulary": {k: known[k] for k in SIZES if k in known}}
    if result.model is not None:
        follow(result.model)
    if (out / FOLDER).is_dir():
        write_json(out / FOLDER / "report.json", report)
    return replace(result, plan=plan, report=report)


def absolute(
    budgets: Mapping[str, Any], dense: nn.Module, example_inputs: Any
) -> dict[str, Budget | list[Budget]]:
    """Budgets with limits in their own units, shares being shares of a network.

    Args:
        budgets: as for `rlprune.prune`; one of them may have a list of limits.
        dense: the network whose shares are meant.
        example_inputs: what it is called with.
    """
    asked = sets(budgets)
    found: dict[str, Budget | list[Budget]] = {}
    for budget in asked.sets[0]:
        several = asked.limits if budget.name == asked.varied else (budget,)
        own = [_absolute(one, dense, example_inputs) for one in several]
        found[budget.name] = own if budget.name == asked.varied else own[0]
    return found


def _absolute(asked: Budget, dense: nn.Module, example_inputs: Any) -> Budget:
    made = copy.copy(asked)
    made.limit = Limit(asked.resolve(dense, example_inputs).limit, relative=False)
    return made
