"""The stages of one job, each skipped when its record is valid."""

from __future__ import annotations

import csv
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from rlprune import budgets as budget_module
from rlprune.budgets import ResolvedBudget
from rlprune.errors import CheckpointError
from rlprune.files import file_digest, plain
from rlprune.identity import digest
from rlprune.plan import Plan
from rlprune.run.changes import compare_with_run
from rlprune.run.example import save_example
from rlprune.run.folder import StageRecord
from rlprune.run.job import Job
from rlprune.run.result import PruneResult
from rlprune.run.verify import require_met

log = logging.getLogger(__name__)


class Stages:
    """Runs the stages of one job.

    Whatever is handed over meets every budget as measured in this run (law 2): a network taken
    from the folder is measured again.

    Args:
        job: The job.
        search: Runs the search stage; the job's own search when None.

    Raises:
        ConfigError: The folder holds a run with other settings, and ``redo`` is false.
    """

    def __init__(self, job: Job, search: Callable[[], dict[str, Any]] | None = None) -> None:
        self.job, self.stages = job, job.spec.stages
        self.kept = job.spec.out_dir is not None
        self._own_search = search
        self._made: set[str] = set()
        compare_with_run(job)
        if not save_example(job.folder.path, job.example_inputs):
            log.info("example inputs of this kind are not stored; rlprune.load will ask for them")

    def run(self) -> PruneResult:
        """Run the stages, or read back what they left."""
        job, folder = self.job, self.job.folder
        search = self._search()
        told = f"{folder.path} holds a network that does not meet its budgets any more: it"
        plan = Plan.from_json((folder / "plan.json").read_text(encoding="utf-8"))
        network: nn.Module | None = None
        costs = search.result["costs"]
        report: dict[str, Any] = {}
        tuned = self._finetune(search, plan)
        if tuned is None and "search" not in self._made:
            small = job.skeleton(plan, load_file(folder / "compacted.safetensors"))
            costs = require_met(_as_searched(job, search), small, job.example_inputs, told)
        if tuned is not None:
            network = job.skeleton(plan, load_file(folder / "model.safetensors"))
            costs = tuned.result["costs"]
            if "finetune" not in self._made:
                costs = require_met(_as_searched(job, search), network, job.example_inputs, told)
            self._export(network, plan)
            report = self._report(search, tuned, plan, network)
        self._drop_stale(search, tuned)
        return PruneResult(
            model=network,
            plan=plan,
            costs=costs,
            quality=search.result["quality"],
            history=_read_history(folder / "history.csv"),
            report=report,
            out_dir=folder.path if self.kept else None,
        )

    def _drop_stale(self, search: StageRecord, tuned: StageRecord | None) -> None:
        """Remove what stages that did not run now left for another search or another network."""
        folder, stale = self.job.folder, set()
        if "finetune" in self._made:
            stale |= {"export", "report"}
        if "search" in self._made:
            stale.add("report")
            left = folder.record("finetune") if tuned is None else None
            compacted = search.outputs["compacted.safetensors"]
            if left is not None and left.settings["compacted"] != compacted:
                stale |= {"finetune", "export"}
        for stage in sorted(stale - self._made - set(self.stages)):
            log.info("%s of an earlier result removed from %s", stage, folder.path)
            folder.drop(stage)

    def _search(self) -> StageRecord:
        from rlprune.run.search_stage import outputs, run_search

        settings = self.job.settings["search"]
        run = self._own_search or self._own_rounds or (lambda: run_search(self.job))
        return self._stage("search", settings, lambda _: outputs(self.job), run)

    @property
    def _own_rounds(self) -> Callable[[], dict[str, Any]] | None:
        """The search of an iterative schedule, which is made of runs itself."""
        if not self.job.spec.schedule.iterative:
            return None
        from rlprune.run.rounds import run_rounds

        return lambda: run_rounds(self.job)

    def _finetune(self, search: StageRecord, plan: Plan) -> StageRecord | None:
        from rlprune.run.finetune_stage import OUTPUTS, run_finetune

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
            return run_finetune(job, plan, compacted, budgets)[1]

        record = self._stage("finetune", settings, OUTPUTS, run)
        shutil.rmtree(folder / "finetune", ignore_errors=True)
        return record

    def _export(self, network: nn.Module, plan: Plan) -> None:
        if "export" not in self.stages or not self.job.spec.exports or not self.kept:
            return
        from rlprune.run.export_stage import outputs, run_export

        job = self.job
        settings = {
            **job.settings["export"],
            "model": file_digest(job.folder / "model.safetensors"),
        }
        self._stage("export", settings, outputs, lambda: run_export(job, network, plan))

    def _report(
        self, search: StageRecord, tuned: StageRecord, plan: Plan, network: nn.Module
    ) -> dict[str, Any]:
        from rlprune.run.report_stage import OUTPUTS, run_report

        if "report" not in self.stages:
            return {}
        job = self.job
        records = [search, tuned, job.folder.record("export")]
        settings = {
            **job.settings["report"],
            "search": digest(search.settings),
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
        self._made.add(stage)
        record = folder.finish(stage, plain(settings), written, plain(result), seconds)
        for callback in self.job.callbacks:
            callback.on_stage(stage, record.result)
        return record


def _as_searched(job: Job, search: StageRecord) -> tuple[ResolvedBudget, ...]:
    """The budgets with the absolute limits of the search, whatever a clock says now."""
    known = search.result["budgets"]
    resolved = budget_module.resolve(job.budgets, job.dense, job.example_inputs, job.groups)
    return tuple(b.restored(known[b.name]["limit"], known[b.name]["dense"]) for b in resolved)


def _read_history(path: Path) -> list[dict[str, float]]:
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {key: float(value) for key, value in row.items() if value != ""}
            for row in csv.DictReader(file)
        ]
