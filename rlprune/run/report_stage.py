"""The report stage: everything measured on the networks themselves, the test split read once."""

from __future__ import annotations

import copy
import csv
import logging
import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from rlprune.budgets import count_bytes, count_macs, count_params
from rlprune.budgets.latency import LatencyMeter, LatencySettings
from rlprune.files import plain, write_json, write_text
from rlprune.inputs import batch_of
from rlprune.modes import evaluating
from rlprune.plan import Plan
from rlprune.run.folder import StageRecord
from rlprune.run.job import Job
from rlprune.tasks import Metric

log = logging.getLogger(__name__)

OUTPUTS = ("report.json", "report.html")
HELD, SCORE = "holdout_", "score"


def run_report(
    job: Job, plan: Plan, network: nn.Module, records: Sequence[StageRecord]
) -> dict[str, Any]:
    """Measure the dense and the pruned network, write ``report.json`` and ``report.html``.

    Args:
        job: The run.
        plan: What was kept.
        network: The pruned, fine-tuned network.
        records: The finished stages.

    Returns:
        The content of ``report.json``.
    """
    from rlprune.report.html import render

    by_stage = {record.stage: record for record in records}
    search, tuned = by_stage["search"].result, by_stage["finetune"].result
    before = job.skeleton(plan, load_file(job.folder / "compacted.safetensors"))
    networks = {"dense": job.dense, "pruned_before_finetune": before, "pruned": network}
    if job.recipe is None or job.recipe.epochs == 0:
        del networks["pruned_before_finetune"]
    report: dict[str, Any] = {name: _quality(job, item) for name, item in networks.items()}
    report.setdefault("pruned_before_finetune", dict(report["pruned"]))
    for name in ("dense", "pruned"):
        report[name].update(_size(networks[name], job.example_inputs))
    dense_ms, pruned_ms, settings = _latency(job, network)
    report["dense"]["latency_ms"], report["pruned"]["latency_ms"] = dense_ms, pruned_ms
    report["budgets"] = {
        name: {
            "limit": budget["limit"],
            "value": tuned["costs"][name],
            "dense": budget["dense"],
            "unit": budget["unit"],
            "spec": budget["spec"],
        }
        for name, budget in search["budgets"].items()
    }
    stages = {record.stage: record.seconds for record in records}
    report.update(
        {
            "evaluations": search["evaluations"],
            "feasible": search["feasible"],
            "seconds": sum(stages.values()),
            "stages": stages,
            "quality": search["quality"],
            "objective": _objective(job, report, search["quality"]),
            "data": None if job.data is None else repr(job.data),
            "task": None if job.data is None else repr(job.data.task),
            "metrics": _columns(job),
            "trust": _needs_trust(job),
            "agent": job.settings["search"]["agent"],
            "start": search.get("start"),
            "weights": search.get("weights", {}),
            "dropped": search.get("dropped", []),
            "gates": _gates(job),
            "rounds": search.get("rounds") or tuned.get("rounds", []),
            "seed": job.spec.seed,
            "latency": settings,
            "exports": by_stage["export"].result if "export" in by_stage else {},
            "limits": list(job.limits),
            "groups": search["groups"],
            "finetune": {"best_epoch": tuned["best_epoch"], "history": tuned["history"]},
            "search": search["stats"],
            "plan": plan.digest,
            "environment": _environment(job),
        }
    )
    report = plain(report)
    write_json(job.folder / "report.json", report)
    with open(job.folder / "history.csv", newline="", encoding="utf-8") as file:
        history = list(csv.DictReader(file))
    write_text(job.folder / "report.html", render(report, history, job.folder.path))
    return report


def _gates(job: Job) -> list[dict[str, Any]]:
    """The moments of a training of gates; none where another agent searched."""
    from rlprune.search.agent import load_state

    found: list[dict[str, Any]] = load_state(job.folder.path).get("snapshots", [])
    return found


def _needs_trust(job: Job) -> bool:
    """Whether loading the folder calls a function of the user's own, see :func:`rlprune.load`."""
    from rlprune.models.trust import is_harmless

    factory = job.spec.factory
    return factory is not None and not is_harmless(
        {"name": factory} if isinstance(factory, str) else factory
    )


def _quality(job: Job, network: nn.Module) -> dict[str, float]:
    """The task's metrics on test and held-out samples, the user's score where there is one.

    Metrics of the test split stand under their names, those of the held-out part under
    ``holdout_<name>``.
    """
    from rlprune.training import evaluate

    found: dict[str, float] = {}
    if job.data is not None:
        task, device = job.data.task, job.device
        if job.data.has_test:
            batches = job.data.test_batches(device=device)
            test = evaluate(network, batches, task=task, device=device)
            found.update({metric.name: test[metric.name] for metric in task.shown()})
        batches = job.data.holdout_batches(device=device)
        held = evaluate(network, batches, task=task, device=device)
        found.update({f"{HELD}{metric.name}": held[metric.name] for metric in task.shown()})
    if job.score is not None:
        own = copy.deepcopy(network)  # it may do with it what it likes
        with evaluating(own), torch.no_grad():
            found[SCORE] = float(job.score(own))
    return found


def _columns(job: Job) -> list[dict[str, Any]]:
    """What `_quality` measured, for people: the first is what a run is judged by."""
    columns: list[dict[str, Any]] = []
    if job.data is not None:
        splits = [("", "test")] if job.data.has_test else []
        for prefix, split in [*splits, (HELD, "held-out")]:
            columns += [
                asdict(replace(m, name=prefix + m.name, label=f"{split} {m.label}"))
                for m in job.data.task.shown()
            ]
    if job.score is not None:
        columns.append(asdict(Metric(SCORE, "score")))
    return columns


def _size(network: nn.Module, example_inputs: Any) -> dict[str, float]:
    return {
        "params": int(count_params(network, example_inputs)),
        "macs": int(count_macs(network, example_inputs)),
        "bytes": int(count_bytes(network, example_inputs)),
    }


def _latency(job: Job, network: nn.Module) -> tuple[float, float, dict[str, Any]]:
    """Milliseconds of the dense and the pruned network, timed interleaved."""
    timing = job.spec.latency
    settings = LatencySettings(**{**vars(timing), "device": timing.device or str(job.device)})
    inputs = batch_of(job.example_inputs, settings.batch_size)
    meter = LatencyMeter(job.dense, inputs, settings)
    pruned = meter(network, inputs)
    return meter.reference_ms, pruned, {**vars(settings), "threads": torch.get_num_threads()}


def _objective(job: Job, report: dict[str, Any], quality: float) -> float:
    """What a sweep maximises; never the test split."""
    pruned = report["pruned"]
    if SCORE in pruned:
        return float(pruned[SCORE])
    if job.data is None:
        return quality
    metric = job.data.task.metric
    return metric.score(pruned[f"{HELD}{metric.name}"])


def _environment(job: Job) -> dict[str, Any]:
    import rlprune

    device = job.device
    return {
        "rlprune": rlprune.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
    }
