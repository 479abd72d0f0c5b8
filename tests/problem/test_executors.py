"""Worker processes give what one process gives, and survive the death of a worker."""

from __future__ import annotations

import os
import signal
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import pytest
from torch import nn

from rlprune.budgets import Budget
from rlprune.errors import ConfigError, NotFiniteError, RlpruneError, ScoreError
from rlprune.inputs import ExampleInputs
from rlprune.plan import Plan
from rlprune.problem import (
    Executor,
    Problem,
    ProcessExecutor,
    RayExecutor,
    ScoreQuality,
    SerialExecutor,
    create_executor,
)
from rlprune.problem.executors import crew
from rlprune.search import search
from tests.problem.problems import digits, evaluator, groups, tiles

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


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


@pytest.mark.parametrize(
    "kind", ["processes", pytest.param("ray", marks=[pytest.mark.long, needs_ray])]
)
def test_two_workers_have_the_ledger_of_one_process(tmp_path: Path, kind: str) -> None:
    batches = [(part, None) for part in digits()[0][:200].split(100)]

    def ledger(executor: Executor | None) -> tuple[object, ...]:
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
    assert ledger(create_executor(kind, workers=2)) == serial
    lines = [(tmp_path / f"{flag}.jsonl").read_text().splitlines() for flag in (True, False)]
    assert len(lines[0]) == len(lines[1])


@pytest.mark.parametrize(
    "kind", ["processes", pytest.param("ray", marks=[pytest.mark.long, needs_ray])]
)
def test_a_worker_that_dies_hangs_or_finds_no_number_is_replaced(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def once(network: nn.Module) -> float:
        number = len(list(tmp_path.iterdir()))
        if number < 3:
            (tmp_path / f"{number}-{os.getpid()}").touch()
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 1:
            time.sleep(600)
        return float("nan") if number == 2 else size_of(network)

    executor = create_executor(kind, workers=1, time_limit=4.0)
    problem = evaluator(quality=ScoreQuality(once), executor=executor)
    try:
        asked = plans(problem, 5)
        found = problem.evaluate_many(asked)
    finally:
        problem.close()
    lost = {path.name.partition("-")[2] for path in tmp_path.iterdir()}
    assert len(lost) == 3, "every time another process"
    assert str(os.getpid()) not in lost
    reasons = ("died", "took longer than 4 s", "found a score that is not finite")
    for worker, reason in enumerate(reasons, 1):
        assert f"worker {worker} {reason} (" in caplog.text
    assert [e.plan for e in found] == asked
    assert [e.quality for e in found] == [
        problem.groups.params(list(p.widths.values())) for p in asked
    ]
    assert problem.stats["workers"]["4"]["answers"] == 5
    assert problem.stats["workers"]["4"]["peak"] > 50


def test_what_fails_in_a_worker_fails_here_with_the_same_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crew, "LIVES", 1)
    asked = plans(evaluator(), 4)
    sizes = [groups().params(list(plan.widths.values())) for plan in asked]

    def fragile(network: nn.Module) -> float:
        if size_of(network) == sizes[2]:
            raise ZeroDivisionError
        if size_of(network) == sizes[3]:
            os._exit(3)
        return float("inf") if size_of(network) == sizes[1] else 1.0

    problem = evaluator(quality=ScoreQuality(fragile), executor=ProcessExecutor(1))
    try:
        with pytest.raises(NotFiniteError, match=r"widths \[.* is inf; it must be a finite"):
            problem.evaluate_many(asked[:2])
        with pytest.raises(ScoreError, match=r"widths \[.*raised ZeroDivisionError"):
            problem.evaluate_many([asked[0], *asked[2:]])
        assert [e.plan for e in problem.ledger] == asked[:1]
        with pytest.raises(RlpruneError, match="1 workers were lost one after the other"):
            problem.evaluate(asked[3])
    finally:
        problem.close()


@pytest.mark.long
def test_workers_that_hold_too_much_become_fewer(caplog: pytest.LogCaptureFixture) -> None:
    executor = create_executor("processes", workers=3, memory=0.3)
    problem = evaluator(executor=executor)
    try:
        asked = plans(problem, 8)
        assert [e.plan for e in problem.evaluate_many(asked)] == asked
        peaks = [told["peak"] for told in problem.stats["workers"].values()]
        assert sum(peaks) > 0.3 * 1024
        assert executor.workers < 3
    finally:
        problem.close()
    assert f"{executor.workers} are left" in caplog.text


@needs_ray
def test_options_of_ray_are_checked_without_starting_it() -> None:
    made = create_executor({"name": "ray", "gpus": 0.25, "clock": {"resources": {"device": 1}}})
    assert isinstance(made, RayExecutor)
    assert made.has_clock
    assert not create_executor("ray", workers=2).has_clock
    with pytest.raises(ConfigError, match="gpus must be 0 or more, got -1"):
        create_executor("ray", gpus=-1)
    with pytest.raises(ConfigError, match="clock has no option 'cpu'; choose of cpus, gpus"):
        create_executor("ray", clock={"cpu": 1})


@pytest.mark.long
@needs_ray
def test_an_actor_of_its_own_reads_clocks() -> None:
    executor = create_executor("ray", workers=1, clock={"cpus": 1})
    problem = evaluator({"clock": ClockLike(process_id, 1e9)}, executor=executor)
    try:
        found = problem.evaluate_many(plans(problem, 3))
        clocks = {evaluation.costs["clock"] for evaluation in found}
        assert len(clocks) == 1
        assert os.getpid() not in clocks
        assert problem.stats["workers"]["clock"]["answers"] == 4, "the smallest, and these"
    finally:
        problem.close()


def test_executors_by_name() -> None:
    assert isinstance(create_executor("serial"), SerialExecutor)
    made = create_executor({"name": "processes", "threads": None}, workers=3)
    assert isinstance(made, ProcessExecutor)
    assert made.workers == 3
    with pytest.raises(ConfigError, match="'dask' is unknown; known are serial, processes, ray"):
        create_executor("dask")
    for wrong in (0, "some"):
        with pytest.raises(ConfigError, match=f"workers must be auto or at least 1, got {wrong!r}"):
            create_executor("processes", workers=wrong)
    with pytest.raises(ConfigError, match="time_limit must be positive or null, got 0"):
        create_executor("processes", time_limit=0)
    auto = create_executor({"name": "processes", "threads": 1}, workers="auto")
    assert auto.workers == crew.cores()
    with pytest.raises(ConfigError, match="executor 'serial': wrong option"):
        create_executor("serial", workers=2)
    lock = threading.Lock()
    bound = ScoreQuality(lambda network: float(lock.locked()))
    problem = evaluator(quality=bound, executor=ProcessExecutor(1))
    with pytest.raises(ConfigError, match="cannot be sent to another process"):
        problem.evaluate(plans(problem, 1)[0])
