"""Rounding, smallest widths, exclusions and bounds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlprune.compaction import discover
from rlprune.errors import ConfigError
from rlprune.plan import Plan
from tests.structure.laws import hold

IMAGE = torch.zeros(1, 3, 8, 8)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 20, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(320, 12), nn.ReLU(), nn.Linear(12, 2),
    )  # fmt: skip


def legal(**wishes: object) -> dict[str, tuple[int, ...]]:
    groups = discover(network(), IMAGE, **wishes)  # type: ignore[arg-type]
    return {g.name: g.legal_widths() for g in groups if g.prunable}


def test_any_width_by_default() -> None:
    assert legal() == {"0": (*range(1, 33),), "2": (*range(1, 21),), "5": (*range(1, 13),)}


def test_multiples_and_the_dense_width() -> None:
    assert legal(round_to=8) == {"0": (8, 16, 24, 32), "2": (8, 16, 20), "5": (8, 12)}


def test_multiples_by_name_the_last_match_counts() -> None:
    found = legal(round_to={"*": 4, "0": 16, "5": 1})
    assert found == {"0": (16, 32), "2": (4, 8, 12, 16, 20), "5": (*range(1, 13),)}


def test_multiples_count_channels_not_units() -> None:
    model = nn.Sequential(nn.Conv2d(3, 24, 1), nn.GroupNorm(6, 24), nn.ReLU(), nn.Conv2d(24, 2, 1))
    group = discover(model, IMAGE, round_to=8)["0"]
    assert group.width == 6
    assert group.divisor == 2
    assert group.legal_widths() == (2, 4, 6)


def test_a_step_no_width_can_take_freezes() -> None:
    groups = discover(network(), IMAGE, round_to=16)
    assert groups["5"].reason == "no width below 12 is a multiple of 16 and at least 1"
    assert groups["2"].legal_widths() == (16, 20)


def test_smallest_widths() -> None:
    assert {n: w[0] for n, w in legal(min_width=7).items()} == {"0": 7, "2": 7, "5": 7}
    assert {n: w[0] for n, w in legal(min_width=7, round_to=4).items()} == {"0": 8, "2": 8, "5": 8}
    assert "at least 40" in discover(network(), IMAGE, min_width=40)["0"].reason


def test_bounds() -> None:
    found = legal(bounds={"*": (0.25, 1.0), "2": (0.5, 0.75)})
    assert (found["0"][0], found["0"][-1]) == (8, 32)
    assert (found["2"][0], found["2"][-1]) == (10, 15)
    assert legal(bounds={"2": (0.5, 0.75)}, round_to=4)["2"] == (12,)
    assert legal(bounds={"2": (0.5, 0.9)}, round_to=8)["2"] == (16,)


def test_bounds_that_leave_no_multiple_freeze() -> None:
    groups = discover(network(), IMAGE, bounds={"2": (0.5, 0.75)}, round_to=16)
    assert groups["2"].reason == "no width in 10..15 is a multiple of 16"


def test_upper_bounds_force_pruning() -> None:
    groups = discover(network(), IMAGE, bounds={"0": (0.1, 0.5)})
    plan = Plan.uniform(groups, 1.0, {g.name: torch.ones(g.width) for g in groups.prunable})
    assert plan.widths == {"0": 16, "2": 20, "5": 12}


def test_exclusions() -> None:
    assert set(legal(exclude=["[02]"])) == {"5"}
    assert set(legal(exclude="5")) == {"0", "2"}
    assert discover(network(), IMAGE, exclude=("5",))["5"].reason == "excluded by '5'"


def test_excluding_a_container_excludes_all_inside_it() -> None:
    chain = nn.Sequential(network(), nn.ReLU(), nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 2))
    groups = discover(chain, IMAGE, exclude="0")
    assert [g.name for g in groups.prunable] == ["2"]


def test_excluding_a_module_keeps_all_its_tensors() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)).double()
    groups, _ = hold(model, torch.randn(2, 3, 4, 4, dtype=torch.float64))
    assert groups["0"].prunable
    assert discover(model, IMAGE.double(), exclude=["1"])["0"].reason == "excluded by '1'"


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"min_width": 0}, "min_width is 0; it must be at least 1"),
        ({"round_to": 0}, r"round_to for '\*' is 0"),
        ({"round_to": {"x*": 8}}, r"'x\*' matches no module; groups are 0, 2, 5"),
        ({"exclude": ["layer9"]}, "'layer9' matches no module"),
        ({"bounds": {"0": (0.6, 0.5)}}, r"bounds for '0' are \(0.6, 0.5\)"),
        ({"bounds": {"0": (0.0, 0.5)}}, "need 0 < lowest <= highest <= 1"),
    ],
)
def test_impossible_wishes_are_refused(wishes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        legal(**wishes)
