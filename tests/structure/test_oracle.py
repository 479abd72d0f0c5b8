"""The oracle: random networks, random plans, masked == compacted, predicted == counted."""

from __future__ import annotations

import pytest
import torch

from rlprune.budgets.metrics import count_macs, count_params
from rlprune.compaction import Workspace, build, discover
from rlprune.compaction.difference import difference
from rlprune.compaction.verify import masked_copy
from rlprune.plan import Plan
from rlprune.structure import Groups
from tests.structure.random_networks import random_network, random_plan

NETWORKS, CHUNK = 150, 15
LONG_NETWORKS, LONG_CHUNK = 6000, 500


def check(groups: Groups, workspace: Workspace, plan: Plan) -> None:
    """Law 1 in float64, exact parameter and MAC predictions, workspace and build agree."""
    small = build(groups, plan)
    found = difference(masked_copy(groups, plan), small, groups.example_inputs)
    assert found.agrees, f"masked and compacted differ by {found.relative}"
    found = difference(small, workspace.build(plan), groups.example_inputs)
    assert found.agrees, f"workspace and build differ by {found.relative}"
    widths = list(plan.widths.values())
    assert groups.params(widths) == count_params(small)
    if not _degenerate(groups, widths):
        assert groups.macs(widths) == pytest.approx(count_macs(small, groups.example_inputs))
    dense = [(n, t.dtype) for n, t in groups.model.state_dict().items()]
    assert [(n, t.dtype) for n, t in small.state_dict().items()] == dense
    assert type(small) is type(groups.model)


def _degenerate(groups: Groups, widths: list[int]) -> bool:
    """torch.einsum multiplies element-wise, which no counter counts, where a size becomes 1."""
    return 1 in widths and any(type(m).__name__ == "Einsum" for m in groups.model.modules())


def failures(seeds: range) -> tuple[list[str], list[float]]:
    """Seeds whose network breaks a law, with the reason; removable share of each network."""
    broken, shares = [], []
    for seed in seeds:
        network = random_network(seed)
        try:
            groups = discover(network.model, network.inputs)
            assert not [g.reason for g in groups if "cannot follow" in g.reason]
            workspace = Workspace(groups)
            for k in range(2):
                check(groups, workspace, random_plan(groups, 2 * seed + k))
        except Exception as error:
            broken.append(f"seed {seed}: {type(error).__name__}: {error}")
            continue
        least = groups.params([g.legal_widths()[0] for g in groups.prunable])
        shares.append(1 - least / groups.params())
    return broken, shares


@pytest.mark.parametrize("first", range(0, NETWORKS, CHUNK))
def test_random_networks_hold_law_1(first: int) -> None:
    broken, shares = failures(range(first, first + CHUNK))
    assert not broken, "\n".join(broken)
    assert sum(shares) / len(shares) > 0.5
    assert sum(s == 0 for s in shares) <= CHUNK // 10


@pytest.mark.long
@pytest.mark.parametrize("first", range(NETWORKS, NETWORKS + LONG_NETWORKS, LONG_CHUNK))
def test_thousands_of_random_networks_hold_law_1(first: int) -> None:
    broken, shares = failures(range(first, first + LONG_CHUNK))
    assert not broken, "\n".join(broken)
    assert sum(shares) / len(shares) > 0.6


def test_a_seed_is_a_network() -> None:
    first, second = random_network(7), random_network(7)
    state = first.model.state_dict()
    assert all(torch.equal(t, state[n]) for n, t in second.model.state_dict().items())
