"""The black boxes of the search benchmark, by hand; rivals' agents on one of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlprune.bench.boxes import energy, tiles, working_set
from rlprune.search import create_agent, search
from tests.search.analytic_problem import AnalyticProblem


def network() -> tuple[nn.Module, torch.Tensor]:
    layers = [nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 16, 10)]
    return nn.Sequential(*layers), torch.zeros(2, 3, 4, 4)


def test_boxes_by_hand() -> None:
    model, inputs = network()
    convolution, linear = 3 * 12 * 9, 12 * 16 * 10
    assert tiles(model, inputs) == 1 * 2 * 9 * 16 + 24 * 2
    assert tiles(model, inputs, side=1) == convolution * 16 + linear
    assert energy(model, inputs, cache=1000) == (
        convolution * 16 + linear + 50 * convolution + 500 * linear + 6 * (12 * 16 + 10)
    )
    assert working_set(model, inputs) == 12 * 16 + linear + 10


RIVALS = {
    "Scbo": ("botorch", {"initial": 6, "batch": 3}),
    "CmaEs": ("cma", {"samples": 6}),
    "OptunaTpe": ("optuna", {}),
    "Isres": ("pymoo", {"samples": 6, "parents": 2}),
}
SLOW = "Scbo"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("project", [True, False])
@pytest.mark.parametrize(
    "rival", [pytest.param(r, marks=pytest.mark.long if r == SLOW else ()) for r in RIVALS]
)
def test_rivals_search_on_the_same_ledger(rival: str, project: bool) -> None:
    library, options = RIVALS[rival]
    pytest.importorskip(library)

    def problem() -> AnalyticProblem:
        return AnalyticProblem(decisions_count=6, predicts=True)

    agent = create_agent(f"rlprune.bench.rivals.{rival}", project=project, **options)
    found = search(problem(), agent, evaluations=12, seed=0, progress=False)
    assert len(found.ledger) == 12
    assert found.best.feasible
    assert all(e.feasible for e in found.ledger) or not project
    again = search(problem(), agent, evaluations=12, seed=0, progress=False)
    assert [e.plan for e in again.ledger] == [e.plan for e in found.ledger]
