"""Worker processes give what one process gives, and survive the death of a worker."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import ClassVar

import pytest
from torch import nn

from rlprune.budgets import Budget
from rlprune.errors import ConfigError, RlpruneError, ScoreError
from rlprune.inputs import ExampleInputs
from rlprune.plan import Plan
from rlprune.problem import (
    Problem,
    ProcessExecutor,
    ScoreQuality,
    SerialExecutor,
    create_executor,
)
from rlprune.problem.executors import processes
from rlprune.search import search
from tests.problem.problems import digits, evaluator, groups, tiles


def process_id(model: nn.Module, example_inputs: ExampleInputs) -> float:
    return float(os.getpid())


class ClockLike(Budget):
    """A budget that says it reads a clock."""

    measured: ClassVar[bool] = True


def plans(problem: Problem, count: int) -> list[Plan]:
    sizes = problem.space.sizes
    return [problem.space.plan([max(size - k, 1) for size in sizes]) for k in range(count)]


def size_of(network: nn.Module) -> float:
    return float(sum(parameter.numel() for parameter in network.parameters()))


def test_two_workers_have_the_ledger_of_one_process(tmp_path: Path) -> None:
    batches = [(part, None) for part in digits()[0][:200].split(100)]

    def ledger(executor: ProcessExecutor | None) -> tuple[object, ...]:
        problem = evaluator(
            {
                "macs": 0.5,
                "tiles": Budget(tiles, "80%"),
                "box": Budget(process_id, 1e9),
                "clock": ClockLike(process_id, 1e9),
            },
            compensation="least_squares",
            calibration=batches,
            store=tmp_path / f"{executor is None}.jsonl",
            executor=executor,
        )
        result = search(problem, "cem", 14, seed=1, progress=False)
        stats = problem.stats
        problem.close()
        for evaluation in result.ledger:
            assert evaluation.costs["clock"] == os.getpid(), "clocks are read in this process"
            assert (evaluation.costs.pop("box") == os.getpid()) == (executor is None)
        rows = [(e.index, e.plan.digest, e.quality, e.costs) for e in result.ledger]
        return rows, result.score, result.plan, stats["calls"], stats["unique"]

    serial = ledger(None)
    assert ledger(ProcessExecutor(2)) == serial
    lines = [(tmp_path / f"{flag}.jsonl").read_text().splitlines() for flag in (True, False)]
    assert len(lines[0]) == len(lines[1])


def test_a_worker_that_dies_is_replaced_and_its_plan_asked_again(tmp_path: Path) -> None:
    marker = tmp_path / "died"

    def once(network: nn.Module) -> float:
        if not marker.exists():
            marker.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return size_of(network)

    problem = evaluator(quality=ScoreQuality(once), executor=ProcessExecutor(1))
    try:
        asked = plans(problem, 5)
        found = problem.evaluate_many(asked)
    finally:
        problem.close()
    assert int(marker.read_text()) != os.getpid()
    assert [e.plan for e in found] == asked
    assert [e.quality for e in found] == [
        problem.groups.params(list(p.widths.values())) for p in asked
    ]


def test_what_fails_in_a_worker_fails_here_with_the_same_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "_LIVES", 1)
    asked = plans(evaluator(), 4)
    sizes = [groups().params(list(plan.widths.values())) for plan in asked]

    def fragile(network: nn.Module) -> float:
        if size_of(network) == sizes[2]:
            raise ZeroDivisionError
        if size_of(network) == sizes[3]:
            os._exit(3)
        return 1.0

    problem = evaluator(quality=ScoreQuality(fragile), executor=ProcessExecutor(1))
    try:
        with pytest.raises(ScoreError, match=r"widths \[.*raised ZeroDivisionError"):
            problem.evaluate_many(asked)
        assert [e.plan for e in problem.ledger] == asked[:2]
        with pytest.raises(RlpruneError, match="1 workers died one after the other"):
            problem.evaluate(asked[3])
    finally:
        problem.close()


def test_executors_by_name() -> None:
    assert isinstance(create_executor("serial"), SerialExecutor)
    made = create_executor({"name": "processes", "threads": None}, workers=3)
    assert isinstance(made, ProcessExecutor)
    assert made.workers == 3
    with pytest.raises(ConfigError, match="'ray' is unknown; known are serial, processes"):
        create_executor("ray")
    with pytest.raises(ConfigError, match="workers must be at least 1, got 0"):
        create_executor("processes", workers=0)
    with pytest.raises(ConfigError, match="executor 'serial': wrong option"):
        create_executor("serial", workers=2)
    lock = threading.Lock()
    bound = ScoreQuality(lambda network: float(lock.locked()))
    problem = evaluator(quality=bound, executor=ProcessExecutor(1))
    with pytest.raises(ConfigError, match="cannot be sent to another process"):
        problem.evaluate(plans(problem, 1)[0])
