"""What `auto` stands for, from Python and from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

import rlprune
from rlprune.compensation import LeastSquares
from rlprune.problem import EvaluatorConfig
from rlprune.run import RunSpec
from rlprune.run.config import compose
from rlprune.run.defaults import default_compensation, default_importance, filled_in
from rlprune.training import FineTune


@pytest.mark.parametrize(
    ("compensation", "expected"),
    [
        (["least_squares", "bn"], "obs"),
        ([LeastSquares(ridge=0.1)], "obs"),
        (["sequential", "bn"], "obs"),
        (["merge", "bn"], "l1"),
        ([lambda context: None], "l1"),
        (None, "l1"),
    ],
)
def test_auto_is_obs_where_least_squares_makes_up_for_what_goes(
    compensation: Any, expected: str
) -> None:
    assert default_importance("auto", compensation) == expected
    assert default_importance("taylor", compensation) == "taylor"
    assert default_importance(len, compensation) is len


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "obs"),
        ({"compensation": "auto"}, "obs"),
        ({"compensation": "least_squares"}, "obs"),
        ({"compensation": "bn"}, "l1"),
        ({"compensation": None}, "l1"),
        ({"importance": "fpgm"}, "fpgm"),
        ({"data": None, "score": lambda model: 1.0, "finetune": None}, "l1"),
    ],
)
def test_a_specification_fills_it_in(
    options: dict[str, Any], expected: str, settings: dict[str, Any]
) -> None:
    given = {**settings, **options}
    data = given.pop("data")
    given.pop("score", None)
    assert filled_in(RunSpec.of(**given), data).importance == expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "obs"),
        (["compensation=null"], "l1"),
        (["importance=l2"], "l2"),
        (["importance=obs"], "obs"),
    ],
)
def test_the_command_line_means_the_same(
    overrides: list[str], expected: str, settings: dict[str, Any]
) -> None:
    spec = RunSpec.from_config(compose(overrides))
    assert filled_in(spec, settings["data"]).importance == expected


def test_a_run_with_the_defaults_compensates_and_prunes_in_that_order(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings |= {"evaluations": 2, "finetune": None}
    x = settings["data"].example_inputs
    rlprune.prune(dense, x, out_dir=tmp_path / "a", **settings)
    rlprune.prune(dense, x, out_dir=tmp_path / "b", importance="obs", **settings)
    rlprune.prune(dense, x, out_dir=tmp_path / "c", importance="l1", **settings)
    plans = [(tmp_path / run / "plan.json").read_text() for run in "abc"]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


@pytest.mark.parametrize(
    ("compensation", "finetune", "result", "candidates"),
    [
        ("auto", FineTune(), ["least_squares", "bn"], ("least_squares",)),
        ("auto", None, ["least_squares", "sequential", "bn"], ("least_squares",)),
        ("auto", FineTune(epochs=0), ["least_squares", "sequential", "bn"], ("least_squares",)),
        ("sequential", FineTune(), ["sequential"], ("least_squares",)),
        (["merge", "bn"], None, ["merge", "bn"], ("merge",)),
        (None, None, None, ()),
    ],
)
def test_layers_are_refitted_one_by_one_where_no_fine_tuning_follows(
    compensation: Any,
    finetune: FineTune | None,
    result: Any,
    candidates: tuple[str, ...],
    settings: dict[str, Any],
) -> None:
    found = default_compensation(compensation, settings["data"], EvaluatorConfig(), finetune)
    assert found[0] == result
    assert found[1].compensation == candidates


def test_a_run_without_fine_tuning_can_be_fine_tuned_later(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings |= {"evaluations": 2, "out_dir": tmp_path / "run"}
    x = settings["data"].example_inputs
    before = rlprune.prune(dense, x, **settings | {"finetune": None})
    after = rlprune.prune(
        dense, x, **settings | {"finetune": FineTune(epochs=1)}, redo=True, stages=("finetune",)
    )
    assert after.plan == before.plan
