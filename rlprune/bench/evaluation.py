"""``rlprune bench evaluation``: evaluations per second, and where the time of one goes."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlprune.batches import cut
from rlprune.bench.workbench import Workbench, environment, open_workbench
from rlprune.compaction import MaskedWorkspace, Workspace
from rlprune.files import write_json, write_text
from rlprune.plan import Plan
from rlprune.problem import DataQuality, Problem, qualities
from rlprune.progress import track
from rlprune.report import markdown
from rlprune.search import search
from rlprune.space import project

log = logging.getLogger(__name__)

Way = Callable[[Plan], float]

PLAIN = "rlprune: slices at their own cost"
MASKED = "masked dense network, same images, precision, score and batch statistics"
PARTS = ("build", "compensate", "forward", "cost")
FEWEST = 2
"""Plans that even the slowest way is timed on."""


def run(config: Mapping[str, Any]) -> list[Path]:
    """Time several ways to score the same plans, in turn, in one process; then a whole search.

    Args:
        config: The composed configuration; ``bench`` as in ``configs/bench/evaluation.yaml``.

    Returns:
        ``evaluation.md`` and ``evaluation.json`` of the problem.

    Raises:
        RlpruneError: A bench is wrong.
    """
    bench = open_workbench(config)
    options = bench.options
    problem = bench.evaluator()
    plans = random_plans(problem, int(options["plans"]) + 2, seed=bench.job.spec.seed)
    ways = _ways(bench, problem)
    times = interleaved(ways, plans, seconds=float(options["seconds"]))
    report = {
        "problem": bench.name,
        "images": _images(bench),
        "ways": {name: _summary(values) for name, values in times.items()},
        "search_way": next(iter(ways)),
        "difference": _difference(ways[PLAIN], ways[MASKED], plans[:2]),
        "search": time_search(bench, options["agent"], int(options["evaluations"])),
        "environment": environment(),
    }
    write_json(bench.folder / "evaluation.json", report)
    write_text(bench.folder / "evaluation.md", _markdown(report))
    return [bench.folder / "evaluation.md", bench.folder / "evaluation.json"]


def random_plans(problem: Problem, count: int, seed: int) -> list[Plan]:
    """Random plans projected onto the budgets."""
    generator = np.random.default_rng(seed)
    ratios = generator.uniform(0.05, 1.0, size=(count, len(problem.space)))
    return [problem.space.plan(project(problem, row)) for row in ratios]


def interleaved(
    ways: Mapping[str, Way], plans: list[Plan], seconds: float = math.inf
) -> dict[str, list[float]]:
    """Time every way in turn, plan by plan.

    Args:
        ways: What to time.
        plans: The first warms up, the second tells how slow a way is, the others are timed.
        seconds: Spent on each way; a slow one is timed on fewer plans, at least `FEWEST`.

    Returns:
        Seconds per plan of every way.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    shares: dict[str, int] = {}
    for name, way in ways.items():
        way(plans[0])
        once = _timed(way, plans[1])
        shares[name] = max(FEWEST, min(int(seconds / max(once, 1e-9)), len(plans) - 2))
        log.info("%s: about %.3g s, timed on %d plans", name, once, shares[name])
    for number, plan in enumerate(track(plans[2:], "Timing evaluations")):
        for name, way in ways.items():
            if number < shares[name]:
                times[name].append(_timed(way, plan))
    return times


def _timed(way: Way, plan: Plan) -> float:
    started = time.perf_counter()
    way(plan)
    return time.perf_counter() - started


def time_search(bench: Workbench, agent: Any, evaluations: int) -> dict[str, Any]:
    """A whole search: evaluations per second and the share of every part.

    Args:
        bench: The problem.
        agent: The agent.
        evaluations: Unique evaluations.

    Returns:
        Seconds by part per unique evaluation; ``env_and_agent`` is what no other part accounts
        for. Left out are the preparation of the compensation, once per search and given apart,
        with the uniform plan that pays for it, and the re-scoring of finalists.
    """
    problem = bench.evaluator(rescore_images=bench.job.spec.evaluator.images)
    search(problem, agent, 1)
    before = dict(problem.stats["seconds"])
    found = search(problem, agent, evaluations + 1)
    after = problem.stats["seconds"]
    spent = {part: after[part] - before[part] for part in PARTS}
    other = max(found.seconds - sum(spent.values()), 0.0)
    scored = sum(evaluation.seconds for evaluation in found.ledger[1:])
    rescoring = max(sum(spent.values()) - spent["cost"] - scored, 0.0)
    whole = found.seconds - rescoring
    count = len(found.ledger) - 1
    shrink = scored / max(scored + rescoring, 1e-12)
    parts = {part: spent[part] * (1.0 if part == "cost" else shrink) for part in PARTS}
    parts["env_and_agent"] = other
    return {
        "agent": agent if isinstance(agent, str) else dict(agent),
        "evaluations": count,
        "seconds": whole,
        "preparation_seconds": before["compensate"],
        "evaluations_per_second": count / whole,
        "seconds_per_evaluation": {part: value / count for part, value in parts.items()},
        "share": {part: value / whole for part, value in parts.items()},
    }


def _images(bench: Workbench) -> dict[str, int]:
    """Images that candidates are scored on, ours and the AMC way."""
    size = bench.data.holdout_size
    return {
        "searched": min(bench.job.spec.evaluator.images, -(-size // 2)),
        "published": min(int(bench.options["amc_images"]), size),
    }


def _ways(bench: Workbench, problem: Problem) -> dict[str, Way]:
    """The ways by name; the first is what a search does."""
    job = bench.job
    masked, workspace = MaskedWorkspace(job.groups), Workspace(job.groups)
    same, _ = qualities(job.dense, bench.data, None, job.spec.evaluator, job.calibration)
    count = _images(bench)["published"]
    task = bench.data.task
    measure = DataQuality(
        job.dense,
        cut(bench.data.holdout, slice(count)),
        task=task,
        kind="metric",
        batch_size=job.spec.evaluator.batch_size,
        statistics="keep",
        precision="float32",
        channels_last=False,
    )

    def searched(plan: Plan) -> float:
        problem.restart()
        return problem.evaluate(plan).quality

    ways: dict[str, Way] = {
        PLAIN: lambda plan: same(workspace.build(plan)),
        MASKED: lambda plan: same(masked.build(plan)),
        f"masked dense network, float32, {task.metric.label} on {count} images (AMC)": (
            lambda plan: measure(masked.build(plan))
        ),
    }
    methods = [
        method if isinstance(method, str) else type(method).__name__
        for method in job.spec.evaluator.compensation
    ]
    if methods:
        ways = {f"{PLAIN}, with {' and '.join(methods)}": searched, **ways}
    return ways


def _difference(ours: Way, masked: Way, plans: list[Plan]) -> float:
    """Largest difference of the two scores: the mask and the slices are one candidate."""
    return max(abs(ours(plan) - masked(plan)) for plan in plans)


def _summary(values: list[float]) -> dict[str, float]:
    middle = statistics.median(values)
    return {
        "seconds": middle,
        "fastest": min(values),
        "slowest": max(values),
        "plans": len(values),
        "evaluations_per_second": 1.0 / middle,
    }


def _markdown(report: Mapping[str, Any]) -> str:
    ours = report["ways"][report["search_way"]]["seconds"]
    rows = [
        (
            name,
            f"{entry['evaluations_per_second']:.2f}",
            f"{1e3 * entry['seconds']:.0f}",
            f"{entry['seconds'] / ours:.2f}",
            str(entry["plans"]),
        )
        for name, entry in report["ways"].items()
    ]
    found = report["search"]
    each = found["seconds_per_evaluation"]
    parts = [
        (name.replace("_", " "), f"{1e3 * each[name]:.1f}", f"{100 * found['share'][name]:.1f}")
        for name in each
    ]
    about = report["environment"]
    agent = found["agent"] if isinstance(found["agent"], str) else found["agent"]["name"]
    return (
        "\n\n".join(
            [
                f"## One evaluation: {report['problem']}",
                f"Medians over plans evaluated in turn; {about['processor']}, {about['threads']} "
                f"threads. The search scores {report['images']['searched']} images; the first way "
                f"is the search's own. Slices and mask without compensation compute the same "
                f"score, here to within {report['difference']:.1e}.",
                markdown.table(
                    ("way", "evaluations per second", "ms", "times the first", "plans"), rows
                ),
                f"Search with {agent}: {found['evaluations']} unique evaluations, "
                f"{found['evaluations_per_second']:.2f} per second, all overhead included; before "
                f"them {found['preparation_seconds']:.1f} s to prepare the compensation.",
                markdown.table(("part", "ms per evaluation", "share, %"), parts),
            ]
        )
        + "\n"
    )
