"""Plans: widths, units, JSON, hashing, refusals."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from rlprune.compaction import discover
from rlprune.errors import PlanError
from rlprune.plan import Plan, nearest_legal
from rlprune.structure import Group, Groups


@pytest.fixture(scope="module")
def groups() -> Groups:
    model = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 3))
    return discover(model, torch.zeros(2, 4))


def falling(groups: Groups) -> dict[str, torch.Tensor]:
    return {g.name: torch.arange(g.width, 0, -1.0) for g in groups.prunable}


def test_the_best_units_are_kept(groups: Groups) -> None:
    first = torch.tensor([0.0, 9, 1, 8, 0, 9, 1, 3, 7, 0])
    plan = Plan.from_widths(groups, [3, 2], {"0": first, "2": torch.arange(6)})
    assert plan.keep == {"0": (1, 3, 5), "2": (4, 5)}
    assert plan.widths == {"0": 3, "2": 2}
    assert plan.ratios == {"0": 0.3, "2": pytest.approx(1 / 3)}
    assert plan.masks()["2"].tolist() == [False] * 4 + [True] * 2


def test_a_vocabulary_is_part_of_a_plan(groups: Groups) -> None:
    plan = Plan.uniform(groups, 0.5)
    tokens = Plan(plan.keep, plan.dense, (0, 3, 2))
    assert Plan.from_json(tokens.to_json()) == tokens != plan
    assert tokens.drop(groups, []).vocabulary == (0, 3, 2)
    assert tokens.digest != plan.digest == Plan(plan.keep, plan.dense, ()).digest
    with pytest.raises(PlanError, match="vocabulary"):
        Plan(plan.keep, plan.dense, (1, 1))


def test_equal_scores_keep_the_first_units(groups: Groups) -> None:
    plan = Plan.uniform(groups, 0.5, {g.name: torch.ones(g.width) for g in groups.prunable})
    assert plan.keep == {"0": (0, 1, 2, 3, 4), "2": (0, 1, 2)}


def test_widths_by_name_leave_the_others_dense(groups: Groups) -> None:
    plan = Plan.from_widths(groups, {"2": 1}, falling(groups))
    assert plan.widths == {"0": 10, "2": 1}


def test_json_round_trip_hash_and_digest(groups: Groups) -> None:
    plan = Plan.uniform(groups, 0.3, falling(groups))
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert hash(again) == hash(plan)
    assert again.digest == plan.digest
    assert {plan: 1}[again] == 1
    assert plan != Plan.dense_plan(groups)
    assert json.loads(plan.to_json())["groups"]["0"]["width"] == 10


def test_the_dense_plan_removes_nothing(groups: Groups) -> None:
    plan = Plan.dense_plan(groups)
    assert all(m.all() for m in plan.masks().values())
    assert "16 of 16 units kept" in repr(plan)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a plan: JSONDecodeError"),
        ("[]", "not a plan"),
        ('{"format": 7}', "plan format 7; this version reads 1"),
        ('{"format": 1, "groups": {"a": {"keep": [0]}}}', "not a plan: KeyError: 'width'"),
        ('{"format": 1, "groups": {"a": {"keep": [2], "width": 2}}}', r"outside 0\.\.1"),
        ('{"format": 1, "groups": {"a": {"keep": [1, 0], "width": 2}}}', "sorted and distinct"),
        ('{"format": 1, "groups": {"a": {"keep": [-1], "width": 2}}}', "kept unit -1 is outside"),
    ],
)
def test_malformed_plans_are_refused(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan.from_json(text)


def test_wrong_wishes_are_refused(groups: Groups) -> None:
    scores = falling(groups)
    with pytest.raises(PlanError, match=r"keep is 0; it must be in \(0, 1\]"):
        Plan.uniform(groups, 0, scores)
    with pytest.raises(PlanError, match="3 widths given for 2 prunable groups"):
        Plan.from_widths(groups, [1, 2, 3], scores)
    with pytest.raises(PlanError, match=r"'0': width 11 is not in 1\.\.10"):
        Plan.from_widths(groups, [11, 2], scores)
    with pytest.raises(PlanError, match="'4' is not prunable: it is an output"):
        Plan.from_widths(groups, {"4": 1}, scores)
    with pytest.raises(PlanError, match="no group named '9'; the network has 0, 2, 4"):
        Plan.from_widths(groups, {"9": 1}, scores)
    with pytest.raises(PlanError, match="no importance scores for group '2'"):
        Plan.from_widths(groups, [1, 1], {"0": torch.ones(10)})
    with pytest.raises(PlanError, match=r"'0': scores have shape \(3,\), need \(10,\)"):
        Plan.from_widths(groups, [1, 1], {**scores, "0": torch.ones(3)})
    with pytest.raises(PlanError, match="same groups"):
        Plan({"a": (0,)}, {"b": 1})


def test_scores_that_are_not_numbers_are_refused(groups: Groups) -> None:
    scores = {**falling(groups), "0": torch.full((10,), float("nan"))}
    with pytest.raises(PlanError, match="'0': some scores are not numbers"):
        Plan.from_widths(groups, [1, 1], scores)


def test_the_nearest_legal_width() -> None:
    group = Group("a", "channels", 20, True, "", 3, 20, 8)
    assert group.legal_widths() == (8, 16, 20)
    assert [nearest_legal(group, w) for w in (0, 12, 12.1, 17.9, 18.1, 99)] == [
        8,
        8,
        16,
        16,
        20,
        20,
    ]
