"""Recipes at equal sizes: the sizes are met, published formulas are those of their papers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlprune.batches import as_batches
from rlprune.bench import recipes
from rlprune.bench.published import UnitScales, flap, wanda_sp
from rlprune.bench.sharing import Cell, even, uneven
from rlprune.compaction import build, discover
from rlprune.compensation import compensate
from rlprune.errors import ConfigError
from rlprune.importance import scores
from rlprune.plan import Plan
from rlprune.structure import Groups

Composed = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def network() -> tuple[Groups, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)
        )
        x = torch.randn(400, 6) + 0.5
    return discover(model.double().eval(), x[:2].double()), x.double()


def test_uneven_shares_keep_as_many_units_as_even_ones(network: tuple[Groups, Tensor]) -> None:
    groups, _ = network
    sizes = Cell({"neurons": 0.5}).sizes(groups, groups)
    assert sizes == {"neurons": 10}
    assert even(groups, sizes) == {"0": 6, "2": 4}
    scored = {"0": torch.arange(12.0), "2": torch.full((8,), 20.0)}
    assert uneven(groups, sizes, scored, standardise=False) == {"0": 2, "2": 8}
    found = uneven(groups, {"neurons": 10}, {"0": 2 * scored["0"], "2": torch.arange(8.0)}, False)
    assert sum(found.values()) == 10
    assert found["0"] > found["2"] >= 1
    assert Cell({"neurons": 0.5}).sizes(groups, groups, 0.5) == {"neurons": 15}


def test_published_scores_by_hand(network: tuple[Groups, Tensor]) -> None:
    groups, x = network
    with torch.no_grad():
        read = groups.model[:2](x)  # type: ignore[index]
    weight = groups.tensors["2.weight"].detach()
    found = scores(groups, wanda_sp, data=[(x[:150], None), (x[150:], None)])["0"]
    want = read.square().mean(0).sqrt() * weight.abs().sum(0)
    torch.testing.assert_close(found.double(), want, rtol=2e-3, atol=0)
    found = scores(groups, flap, data=[(x, None)])["0"]
    want = read.var(0) * weight.square().sum(0)
    torch.testing.assert_close(
        found.double(), (want - want.mean()) / want.std(), rtol=1e-4, atol=1e-4
    )


def test_unit_scales_are_the_best_factors(network: tuple[Groups, Tensor]) -> None:
    groups, x = network
    plan = Plan.from_widths(groups, {"0": 7}, "l2")
    small = build(groups, plan)
    before = small[2].weight.detach().clone()  # type: ignore[index]
    compensate(groups, plan, small, [UnitScales(ridge=0.0)], as_batches((x, torch.zeros(len(x)))))
    factors = small[2].weight / before  # type: ignore[index]
    assert torch.allclose(factors, factors[:1].expand_as(factors))
    with torch.no_grad():
        target = groups.model[:3](x) - groups.model[2].bias  # type: ignore[index]
        read = small[:2](x)  # type: ignore[index]
        columns = torch.stack([(read[:, u, None] * before[:, u]).flatten() for u in range(7)], 1)
        best = torch.linalg.lstsq(columns, target.flatten()[:, None]).solution[:, 0]
    torch.testing.assert_close(factors[0], best, rtol=1e-6, atol=1e-8)


def test_a_study_keeps_what_is_finished(
    composed: Composed, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed(
        "recipes", "bench.seeds=[0,1]", "bench.samples=64",
        "+bench.cells.all={channels:0.5,neurons:0.5}",
        "~bench.cells.two_thirds", "~bench.cells.half",
        "~bench.recipes.fisher_masks", "~bench.recipes.obs_predicted",
        "~bench.recipes.textpruner_even_4", "~bench.recipes.textpruner_uneven_1",
        "bench.recipes.textpruner_uneven_4.rounds=2",
    )  # fmt: skip
    table, details = recipes.run(config)
    assert "| obs_even |" in table.read_text()
    found = json.loads(details.read_text())["results"]
    counts = {sum(r["widths"].values()) for rows in found.values() for r in rows}
    assert max(counts) - min(counts) <= len(found["l2/all"][0]["widths"])  # rounding by layer
    monkeypatch.setattr(recipes.Study, "_prune", None)
    assert recipes.run(config)[0].read_text() == table.read_text()
    config["bench"]["recipes"] = {"wrong": {"allocation": "fair"}}
    with pytest.raises(ConfigError, match="allocation 'fair'"):
        recipes.run(config)
