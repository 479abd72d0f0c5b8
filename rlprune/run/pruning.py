"""``prune()``: the whole job, from a dense network to a smaller one that meets every budget."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from rlprune import budgets as budget_module
from rlprune.budgets import Budget
from rlprune.data import Data
from rlprune.errors import ConfigError
from rlprune.problem import EvaluatorConfig
from rlprune.run.folder import STAGES, RunFolder, plain
from rlprune.run.front import prune_front
from rlprune.run.job import Job, default_compensation, default_importance, place
from rlprune.run.result import PruneResult
from rlprune.run.stages import Run
from rlprune.training import FineTune


def prune(
    model: nn.Module,
    example_inputs: Any,
    *,
    budgets: Mapping[str, Any] | Sequence[Budget],
    data: Data | None = None,
    score: Callable[[nn.Module], float] | None = None,
    agent: Any = "ppo_lagrangian",
    evaluations: int = 300,
    front_later: float = 0.4,
    importance: Any = "auto",
    compensation: Any = "auto",
    evaluator: EvaluatorConfig | Mapping[str, Any] | None = None,
    finetune: FineTune | str | None = "auto",
    exclude: Sequence[str] = (),
    min_width: int = 1,
    round_to: int | Mapping[str, int] = 1,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    device: str | None = None,
    seed: int = 0,
    out_dir: str | Path | None = None,
    factory: str | Mapping[str, Any] | None = None,
    exports: Sequence[str] = ("onnx", "torch_export"),
    latency: Mapping[str, Any] | None = None,
    stages: Sequence[str] = STAGES,
    redo: bool = False,
    progress: bool | None = None,
) -> PruneResult:
    """Prune a network to budgets.

    Searches for the widths, removes the rest, fine-tunes, exports and reports. Every stage is
    recorded in ``out_dir``: calling again with the same arguments and the same folder goes on
    where an interrupted run was, with the result it would have had, and does nothing that is done.

    Args:
        model: The trained network; never changed.
        example_inputs: What it is called with: a tensor, a tuple of positional or a dict of
            keyword arguments.
        budgets: Name -> limit or :class:`rlprune.Budget`, for example
            ``{"macs": 0.5, "latency": rlprune.budgets.Latency(0.7)}``. All hold at once. One of
            them may have a list, as in ``{"macs": [0.7, 0.5, 0.3]}``: then the run finds a
            network for every limit, in fewer evaluations than as many runs would take.
        data: Training, held-out and test samples.
        score: ``score(network) -> float``, higher is better; replaces the score on held-out data.
        agent: Search agent: a name, a mapping with ``name`` and options, or an agent's config.
        evaluations: Unique candidate evaluations of the search.
        front_later: With a list of limits, the evaluations of every limit searched after the
            first one, as a share of ``evaluations``.
        importance: Criterion that orders the units of a group: a name or a function. ``auto`` is
            ``obs`` where the result is compensated by least squares, else ``l1``.
        compensation: How surviving weights make up for the removed ones: a method, several in
            order, or None. ``auto`` is least squares, then BN statistics, where there is
            data; without fine-tuning, sequential least squares in between.
        evaluator: How candidates are scored.
        finetune: The recipe; None leaves the network as compensation left it. ``auto`` is
            ``FineTune()`` with data and None without.
        exclude: Globs of groups that stay whole.
        min_width: Fewest units of any group.
        round_to: Kept channels are multiples of it; a number, or globs to numbers.
        bounds: Globs to (lowest, highest) keep ratio.
        device: Where networks run; None stays where the model is, ``auto`` takes a GPU.
        seed: Decides every random choice.
        out_dir: The run folder; None keeps nothing on disk.
        factory: How :func:`rlprune.load` builds the dense network again: the dotted path of a
            function, or keyword arguments of ``rlprune.models.create``.
        exports: ``onnx`` and ``torch_export``, or fewer.
        latency: ``batch_size``, ``repeats``, ``threads`` of the report's measurement.
        stages: Which stages to run, of ``search``, ``finetune``, ``export``, ``report``; those
            before must have been run in ``out_dir``.
        redo: Run stages again whose settings differ from those recorded in ``out_dir``; without
            it that is an error.
        progress: Draw progress bars; None draws them on a terminal.

    Returns:
        The pruned network with its plan, costs, history and report. With a list of limits, that
        of the tightest one, which meets all of them; ``front`` then holds the result of every
        limit, loosest first.

    Raises:
        ConfigError: An argument is unknown or outside its range.
        InfeasibleBudgetError: No plan can meet the budgets; says which, and how near one comes.
        BudgetError: A budget function fails, or the final network breaks a budget.
        RlpruneError: Whatever else is wrong with the network, data or score; names it.
    """
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise ConfigError(f"stage {unknown[0]!r} is unknown; choose of {', '.join(STAGES)}")
    if not isinstance(evaluator, EvaluatorConfig):
        evaluator = _evaluator_config(evaluator or {})
    if isinstance(finetune, str):
        if finetune != "auto":
            raise ConfigError(f"finetune must be a FineTune, None or 'auto', got {finetune!r}")
        finetune = None if data is None else FineTune()
    chosen, evaluator = default_compensation(compensation, data, evaluator, finetune)
    asked = budget_module.sets(budgets)
    dense, inputs = place(model, example_inputs, device)
    with tempfile.TemporaryDirectory(prefix="rlprune-") as scratch:
        job = Job(
            dense=dense,
            example_inputs=inputs,
            data=data,
            score=score,
            budgets=asked.sets[0],
            agent=agent,
            evaluations=evaluations,
            importance=default_importance(importance, chosen),
            compensation=chosen,
            auto_compensation=isinstance(compensation, str) and compensation == "auto",
            evaluator=evaluator,
            finetune=finetune,
            structure={
                "exclude": tuple(exclude),
                "min_width": min_width,
                "round_to": round_to,
                "bounds": dict(bounds or {}),
            },
            latency=dict(latency or {}),
            exports=tuple(exports),
            seed=seed,
            folder=RunFolder(scratch if out_dir is None else out_dir),
            factory={"name": factory} if isinstance(factory, str) else plain(factory),
            progress=progress,
        )
        kept = out_dir is not None
        if asked.varied is None:
            return Run(job, tuple(stages), redo, kept).run()
        return prune_front(job, asked, front_later, tuple(stages), redo, kept)


def _evaluator_config(options: Mapping[str, Any]) -> EvaluatorConfig:
    try:
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in options.items()
        }
        return EvaluatorConfig(**fields)
    except TypeError as error:
        known = ", ".join(EvaluatorConfig.__dataclass_fields__)
        raise ConfigError(f"evaluator: {error}; its options are {known}") from error
