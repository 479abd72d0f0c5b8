"""Vocabulary and structure in one call: from a folder of the hub's layout to a smaller one."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlprune import budgets as budget_module
from rlprune.budgets import Budget, disk_bytes
from rlprune.budgets.limits import Limit
from rlprune.errors import ConfigError
from rlprune.files import write_atomically
from rlprune.integrations.hf.loading import load
from rlprune.integrations.hf.saving import save
from rlprune.integrations.hf.vocabulary import trim_vocabulary
from rlprune.run.result import PruneResult

TRIMMED, PRUNED = "trimmed", "pruned"
"""Folders below the run's own: the dense network with its smaller vocabulary, and the result."""


def prune(
    path: str | Path,
    out_dir: str | Path,
    *,
    data: Mapping[str, Any],
    budgets: Mapping[str, Any],
    corpus: str | Path | Iterable[str] | None = None,
    min_count: int = 1,
    architecture: str | None = None,
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
    dense, tokenizer = load(path, architecture=architecture, dtype=torch.float32)
    if tokenizer is None:
        raise ConfigError(f"{path} holds no tokenizer; prune the network with rlprune.prune")
    trimmed, kept = dense, None
    if corpus is not None:
        trimmed, tokenizer, kept = trim_vocabulary(
            dense, tokenizer, corpus, min_count, progress=progress
        )
    save(trimmed, out / TRIMMED, tokenizer)
    opened = data_module.load(**{**data, "tokenizer": str(out / TRIMMED)})
    result = rlprune.prune(
        trimmed,
        opened.example_inputs,
        budgets=_absolute(budgets, dense, opened.example_inputs),
        data=opened,
        out_dir=out,
        factory={"_target_": "rlprune.integrations.hf.build", "path": str(out / TRIMMED)},
        exports=(),
        progress=progress,
        **options,
    )
    plan = result.plan
    if kept is not None:
        plan = replace(plan, vocabulary=tuple(kept.tolist()))
    sizes = [int(m.get_input_embeddings().weight.shape[0]) for m in (dense, trimmed)]
    vocabulary = {
        "tokens": {"before": sizes[0], "after": sizes[1]},
        "disk_bytes": {"before": disk_bytes(dense), "after": disk_bytes(trimmed)},
    }
    report = {**result.report, "vocabulary": vocabulary}
    if result.model is not None:
        save(result.model, out / PRUNED, tokenizer, plan)
        text = json.dumps(report, indent=2) + "\n"
        write_atomically(
            out / PRUNED / "report.json", lambda file: file.write_text(text, encoding="utf-8")
        )
    return replace(result, plan=plan, report=report)


def _absolute(budgets: Mapping[str, Any], dense: Any, example_inputs: Any) -> dict[str, Budget]:
    """Budgets with limits in their own units, shares being shares of a network."""
    found = {}
    for asked in budget_module.parse(budgets):
        limit = asked.resolve(dense, example_inputs).limit
        absolute = copy.copy(asked)
        absolute.limit = Limit(limit, relative=False)
        found[asked.name] = absolute
    return found
