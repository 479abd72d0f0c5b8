"""What a benchmark works on: one network, its data and its budgets, opened as ``rlprune`` would."""

from __future__ import annotations

import logging
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from rlprune import budgets as budget_module
from rlprune import data as data_module
from rlprune.budgets import ResolvedBudget
from rlprune.data import Data
from rlprune.files import plain, write_json
from rlprune.identity import digest
from rlprune.problem import Problem, create, create_executor
from rlprune.run import (
    Job,
    RunFolder,
    RunSpec,
    dense_from_config,
    use_threads,
)
from rlprune.training import FineTune

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workbench:
    """One problem of a benchmark.

    Attributes:
        name: Network, data and budgets, fit for a folder.
        options: The ``bench`` part of the configuration.
        job: Everything a run of ``rlprune`` works with.
        data: The job's data.
        folder: Where results of this problem are kept.
    """

    name: str
    options: Mapping[str, Any]
    job: Job
    data: Data
    folder: Path

    @cached_property
    def identity(self) -> str:
        """Digest of all that a search on this problem depends on besides agent and seed."""
        asked = dict(self.job.settings["search"])
        for own in ("agent", "evaluations"):
            asked.pop(own)
        return digest(asked)

    @property
    def recipe(self) -> FineTune:
        """The one fine-tuning recipe."""
        return self.job.recipe or FineTune(epochs=0)

    def evaluator(self, store: str | None = None, rescore_images: int | None = None) -> Problem:
        """The evaluator a run would search with.

        Args:
            store: File name in ``folder`` that results are kept in and shared by all searches.
            rescore_images: Images finalists are scored on, in place of the job's own number.
        """
        job = self.job
        config = job.spec.evaluator
        if rescore_images is not None:
            config = replace(config, rescore_images=rescore_images)
        return create(
            job.groups,
            job.budgets,
            data=job.data,
            importance=job.spec.importance,
            config=config,
            store=None if store is None else self.folder / store,
            seed=job.spec.seed,
            foresight=self.folder,
            executor=create_executor(job.spec.executor, workers=job.spec.workers),
            **job.spec.structure.decisions(),
        )

    def budgets(self) -> tuple[ResolvedBudget, ...]:
        """The budgets bound to the dense network."""
        job = self.job
        return budget_module.resolve(job.budgets, job.dense, job.example_inputs, job.groups)


def open_workbench(config: Mapping[str, Any]) -> Workbench:
    """Open network and data of a composed configuration.

    Args:
        config: The composed configuration with its ``bench`` part.

    Returns:
        The workbench; ``problem.json`` in its folder describes it.

    Raises:
        RlpruneError: Whatever is wrong with the configuration, the network or the data.
    """
    use_threads(config["threads"])
    asked = RunSpec.from_config(config).asked()
    opened = data_module.load(**config["data"]).for_task(config["task"])
    network, device = dense_from_config(config, opened)
    limits = "+".join(_slug(f"{budget.name}_{budget.limit}") for budget in asked.sets[0])
    name = f"{_slug(_model_name(config['model']))}-{_slug(opened.name)}-{limits}"
    folder = Path(config["bench"]["out"]).expanduser() / name
    spec = RunSpec.from_config(config, device=str(device), out_dir=folder)
    job = Job.open(spec, network, opened.example_inputs, data=opened, folder=RunFolder(folder))
    bench = Workbench(name, config["bench"], job, opened, folder)
    write_json(folder / "problem.json", describe(bench, config))
    return bench


def describe(bench: Workbench, config: Mapping[str, Any]) -> dict[str, Any]:
    """What the results of a problem depend on, for its ``problem.json``."""
    job = bench.job
    sections = ("model", "data", "budget", "evaluator", "importance", "finetune", "structure")
    return {
        "name": bench.name,
        "network": _model_name(config["model"]),
        "data": repr(bench.data),
        "metric": asdict(bench.data.task.metric),
        "decisions": [group.name for group in job.groups.prunable],
        "dense_widths": [group.width for group in job.groups.prunable],
        "budgets": {b.name: {"limit": b.limit, "dense": b.dense} for b in bench.budgets()},
        "bench": plain(bench.options),
        "compensation": plain(job.spec.compensation),
        "config": {section: plain(config[section]) for section in sections},
        "environment": environment(),
    }


def environment() -> dict[str, Any]:
    """Versions and hardware that times depend on."""
    import rlprune

    return {
        "rlprune": rlprune.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _model_name(model: Mapping[str, Any]) -> str:
    return str(model.get("name") or model.get("_target_"))


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "", text.replace("/", ".").replace(" ", "_"))


def _processor() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
