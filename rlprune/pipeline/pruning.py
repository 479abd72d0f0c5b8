"""``prune()``: the whole job, from a dense network to a smaller one that meets every budget."""

from __future__ import annotations

import csv
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from rlprune import budgets as budget_module
from rlprune.budgets import Budget, ResolvedBudget
from rlprune.data import Data
from rlprune.errors import CheckpointError, ConfigError
from rlprune.evaluator import EvaluatorConfig
from rlprune.pipeline.changes import compare_with_run
from rlprune.pipeline.example import save_example
from rlprune.pipeline.folder import STAGES, RunFolder, StageRecord, digest, file_digest, plain
from rlprune.pipeline.job import Job, default_compensation, place
from rlprune.pipeline.result import PruneResult
from rlprune.plan import Plan
from rlprune.training import FineTune

log = logging.getLogger(__name__)


def prune(
    model: nn.Module,
    example_inputs: Any,
    *,
    budgets: Mapping[str, Any] | Sequence[Budget],
    data: Data | None = None,
    score: Callable[[nn.Module], float] | None = None,
    agent: Any = "ppo_lagrangian",
    evaluations: int = 300,
    importance: Any = "l1",
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
            ``{"macs": 0.5, "latency": rlprune.budgets.Latency(0.7)}``. All hold at once.
        data: Training, held-out and test samples.
        score: ``score(network) -> float``, higher is better; replaces the score on held-out data.
        agent: Search agent: a name, a mapping with ``name`` and options, or an agent's config.
        evaluations: Unique candidate evaluations of the search.
        importance: Criterion that orders the units of a group: a name or a function.
        compensation: How surviving weights make up for the removed ones: a method, several in
            order, or None. ``auto`` is least squares, then BN statistics, where there is
            data.
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
        The pruned network with its plan, costs, history and report.

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
    chosen, evaluator = default_compensation(compensation, data, evaluator)
    parsed = budget_module.parse(budgets)
    dense, inputs = place(model, example_inputs, device)
    with tempfile.TemporaryDirectory(prefix="rlprune-") as scratch:
        job = Job(
            dense=dense,
            example_inputs=inputs,
            data=data,
            score=score,
            budgets=parsed,
            agent=agent,
            evaluations=evaluations,
            importance=importance,
            compensation=chosen,
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
        return _Run(job, tuple(stages), redo, kept=out_dir is not None).run()


class _Run:
    """The stages of one job, each skipped when its record is valid."""

    def __init__(self, job: Job, stages: tuple[str, ...], redo: bool, kept: bool) -> None:
        self.job, self.stages, self.kept = job, stages, kept
        compare_with_run(job, redo)
        if not save_example(job.folder.path, job.example_inputs):
            log.info("example inputs of this kind are not stored; rlprune.load will ask for them")

    def run(self) -> PruneResult:
        job, folder = self.job, self.job.folder
        search = self._search()
        plan = Plan.from_json((folder / "plan.json").read_text(encoding="utf-8"))
        network: nn.Module | None = None
        costs = search.result["costs"]
        report: dict[str, Any] = {}
        tuned = self._finetune(search, plan)
        if tuned is not None:
            network = job.skeleton(plan, load_file(folder / "model.safetensors"))
            costs = tuned.result["costs"]
            self._export(network)
            report = self._report(search, tuned, plan, network)
        return PruneResult(
            model=network,
            plan=plan,
            costs=costs,
            quality=search.result["quality"],
            history=_read_history(folder / "history.csv"),
            report=report,
            out_dir=folder.path if self.kept else None,
        )

    def _search(self) -> StageRecord:
        from rlprune.pipeline.search_stage import OUTPUTS, run_search

        settings = self.job.settings["search"]
        return self._stage("search", settings, OUTPUTS, lambda: run_search(self.job))

    def _finetune(self, search: StageRecord, plan: Plan) -> StageRecord | None:
        from rlprune.pipeline.finetune_stage import OUTPUTS, run_finetune

        job, folder = self.job, self.job.folder
        settings = {
            **job.settings["finetune"],
            "plan": plan.digest,
            "compacted": search.outputs["compacted.safetensors"],
        }
        if "finetune" not in self.stages and self.stages[-1] == "search":
            return None

        def run() -> dict[str, Any]:
            compacted = job.skeleton(plan, load_file(folder / "compacted.safetensors"))
            budgets = _as_searched(job, search)
            return run_finetune(job, compacted, budgets)[1]

        record = self._stage("finetune", settings, OUTPUTS, run)
        shutil.rmtree(folder / "finetune", ignore_errors=True)
        return record

    def _export(self, network: nn.Module) -> None:
        if "export" not in self.stages or not self.job.exports or not self.kept:
            return
        from rlprune.pipeline.export_stage import outputs, run_export

        job = self.job
        settings = {
            **job.settings["export"],
            "model": file_digest(job.folder / "model.safetensors"),
        }
        self._stage("export", settings, outputs, lambda: run_export(job, network))

    def _report(
        self, search: StageRecord, tuned: StageRecord, plan: Plan, network: nn.Module
    ) -> dict[str, Any]:
        from rlprune.pipeline.report_stage import OUTPUTS, run_report

        if "report" not in self.stages:
            return {}
        job = self.job
        records = [search, tuned, job.folder.record("export")]
        settings = {
            **job.settings["report"],
            "model": tuned.outputs["model.safetensors"],
            "finetune": digest(tuned.settings),
            "exports": None if records[2] is None else records[2].result,
        }
        done = self._stage(
            "report",
            settings,
            OUTPUTS,
            lambda: run_report(job, plan, network, [r for r in records if r is not None]),
        )
        return done.result

    def _stage(
        self,
        stage: str,
        settings: Mapping[str, Any],
        outputs: Sequence[str] | Callable[[Mapping[str, Any]], Sequence[str]],
        run: Callable[[], dict[str, Any]],
    ) -> StageRecord:
        """The stage's valid record, or a new one after running it."""
        folder = self.job.folder
        record = folder.record(stage)
        if record is not None and record.settings == plain(settings):
            log.info("%s: done before, kept", stage)
            return record
        if stage not in self.stages:
            raise CheckpointError(
                f"stage {self.stages[0]!r} needs the {stage} stage, which {folder.path} does not "
                f"hold with these settings; run it first"
            )
        log.info("%s ...", stage)
        started = time.perf_counter()
        result = run()
        written = outputs(result) if callable(outputs) else outputs
        seconds = time.perf_counter() - started
        log.info("%s: %.1f s", stage, seconds)
        return folder.finish(stage, plain(settings), written, plain(result), seconds)


def _as_searched(job: Job, search: StageRecord) -> tuple[ResolvedBudget, ...]:
    """The budgets with the absolute limits of the search, whatever a clock says now."""
    known = search.result["budgets"]
    resolved = budget_module.resolve(job.budgets, job.dense, job.example_inputs, job.groups)
    return tuple(b.restored(known[b.name]["limit"], known[b.name]["dense"]) for b in resolved)


def _evaluator_config(options: Mapping[str, Any]) -> EvaluatorConfig:
    try:
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in options.items()
        }
        return EvaluatorConfig(**fields)
    except TypeError as error:
        known = ", ".join(EvaluatorConfig.__dataclass_fields__)
        raise ConfigError(f"evaluator: {error}; its options are {known}") from error


def _read_history(path: Path) -> list[dict[str, float]]:
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {key: float(value) for key, value in row.items() if value != ""}
            for row in csv.DictReader(file)
        ]
