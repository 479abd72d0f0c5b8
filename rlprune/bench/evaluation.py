"""``rlprune bench evaluation``: evaluations per second, and where the time of one goes."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from rlprune.bench.masking import MaskedDense
from rlprune.bench.setting import Setting, environment, open_setting
from rlprune.bench.tables import markdown
from rlprune.evaluator import DataQuality, Evaluator, projection, qualities
from rlprune.pipeline.folder import write_json, write_text
from rlprune.progress import track
from rlprune.search import search

log = logging.getLogger(__name__)

Widths = tuple[int, ...]
Way = Callable[[Widths], float]

OURS = "rlprune: slices at their own cost"
MASKED = "masked dense network"
PARTS = ("build", "compensate", "forward", "cost")


def run(config: Mapping[str, Any]) -> list[Path]:
    """Time several ways to score the same plans, in turn, in one process; then a whole search.

    Args:
        config: The composed configuration; ``bench`` as in ``configs/bench/evaluation.yaml``.

    Returns:
        ``evaluation.md`` and ``evaluation.json`` of the problem.

    Raises:
        RlpruneError: A setting is wrong.
    """
    setting = open_setting(config)
    options = setting.options
    problem = setting.evaluator()
    plans = random_plans(problem, int(options["plans"]) + 1, seed=setting.job.seed)
    ways = _ways(setting, problem)
    times = interleaved(ways, plans)
    report = {
        "problem": setting.name,
        "ways": {name: _summary(values) for name, values in times.items()},
        "difference": _difference(ways[OURS], ways[MASKED], plans[:2]),
        "search": time_search(setting, options["agent"], int(options["evaluations"])),
        "environment": environment(),
    }
    write_json(setting.folder / "evaluation.json", report)
    write_text(setting.folder / "evaluation.md", _markdown(report))
    return [setting.folder / "evaluation.md", setting.folder / "evaluation.json"]


def random_plans(problem: Evaluator, count: int, seed: int) -> list[Widths]:
    """Random plans projected onto the budgets."""
    generator = np.random.default_rng(seed)
    ratios = generator.uniform(0.05, 1.0, size=(count, len(problem.decisions)))
    return [projection.project(problem, list(row)) for row in ratios]


def interleaved(ways: Mapping[str, Way], plans: list[Widths]) -> dict[str, list[float]]:
    """Seconds of every way for every plan but the first, which warms up; in turn plan by plan."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number, plan in enumerate(track(plans, "Timing evaluations")):
        for name, way in ways.items():
            started = time.perf_counter()
            way(plan)
            if number:
                times[name].append(time.perf_counter() - started)
    return times


def time_search(setting: Setting, agent: Any, evaluations: int) -> dict[str, Any]:
    """A whole search: evaluations per second and the share of every part.

    Args:
        setting: The problem.
        agent: The agent.
        evaluations: Unique evaluations.

    Returns:
        Seconds by part per unique evaluation; ``env_and_agent`` is what no other part accounts
        for. Re-scoring of the finalists is left out.
    """
    search(setting.evaluator(), agent, 2)  # imports and warms up
    problem = setting.evaluator()
    before = dict(problem.stats["seconds"])
    found = search(problem, agent, evaluations)
    after = problem.stats["seconds"]
    spent = {part: after[part] - before[part] for part in PARTS}
    other = max(found.seconds - sum(spent.values()), 0.0)
    scored = sum(evaluation.seconds for evaluation in found.ledger)
    rescoring = max(sum(spent.values()) - spent["cost"] - scored, 0.0)
    whole = found.seconds - rescoring
    count = len(found.ledger)
    shrink = scored / max(scored + rescoring, 1e-12)
    parts = {part: spent[part] * (1.0 if part == "cost" else shrink) for part in PARTS}
    parts["env_and_agent"] = other
    return {
        "agent": agent if isinstance(agent, str) else dict(agent),
        "evaluations": count,
        "seconds": whole,
        "evaluations_per_second": count / whole,
        "seconds_per_evaluation": {part: value / count for part, value in parts.items()},
        "share": {part: value / whole for part, value in parts.items()},
    }


def _ways(setting: Setting, problem: Evaluator) -> dict[str, Way]:
    job = setting.job
    masked = MaskedDense(job.groups)
    same, _ = qualities(job.dense, setting.data, None, job.evaluator, job.calibration)
    images = min(job.evaluator.images, -(-setting.data.holdout_size // 2))
    published = min(int(setting.options["amc_images"]), setting.data.holdout_size)

    def plain(count: int) -> DataQuality:
        x, y = setting.data.holdout
        return DataQuality(
            job.dense,
            (x[:count], y[:count]),
            kind="accuracy",
            batch_size=job.evaluator.batch_size,
            statistics="batch",
            precision="float32",
            channels_last=False,
        )

    def through(quality: Callable[[nn.Module], float]) -> Way:
        return lambda widths: quality(masked.build(problem.plan(widths)))

    def sliced(widths: Widths) -> float:
        problem.restart()
        return problem.evaluate(widths).quality

    return {
        OURS: sliced,
        MASKED: through(same),
        f"{MASKED} in float32, accuracy of {images} images": through(plain(images)),
        f"{MASKED} in float32, accuracy of {published} images (AMC)": through(plain(published)),
    }


def _difference(ours: Way, masked: Way, plans: list[Widths]) -> float:
    """Largest difference of the two scores: the mask and the slices are one candidate."""
    return max(abs(ours(plan) - masked(plan)) for plan in plans)


def _summary(values: list[float]) -> dict[str, float]:
    middle = statistics.median(values)
    return {
        "seconds": middle,
        "fastest": min(values),
        "slowest": max(values),
        "evaluations_per_second": 1.0 / middle,
    }


def _markdown(report: Mapping[str, Any]) -> str:
    ours = report["ways"][OURS]["seconds"]
    rows = [
        (
            name,
            f"{entry['evaluations_per_second']:.2f}",
            f"{1e3 * entry['seconds']:.0f}",
            f"{entry['seconds'] / ours:.2f}",
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
                f"threads. The first two ways compute the same score, here to within "
                f"{report['difference']:.1e}.",
                markdown(("way", "evaluations per second", "ms", "times rlprune's"), rows),
                f"Search with {agent}: {found['evaluations']} unique evaluations, "
                f"{found['evaluations_per_second']:.2f} per second, all overhead included.",
                markdown(("part", "ms per evaluation", "share, %"), parts),
            ]
        )
        + "\n"
    )
