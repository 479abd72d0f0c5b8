"""What must hold for any network, whatever it is."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rlprune.budgets.metrics import count_params
from rlprune.compaction import build, discover
from rlprune.compaction.difference import difference
from rlprune.compaction.verify import masked_copy
from rlprune.plan import Plan
from rlprune.structure import Groups


def half(groups: Groups) -> Plan:
    """About half of every prunable group, units at random."""
    generator = torch.Generator().manual_seed(0)
    scores = {g.name: torch.rand(g.width, generator=generator) for g in groups.prunable}
    return Plan.uniform(groups, 0.5, scores)


def hold(model: nn.Module, inputs: Any) -> tuple[Groups, nn.Module]:
    """Law 1, law 4 and exact parameter counts; returns the groups and the compacted network."""
    before = {n: t.clone() for n, t in model.state_dict().items()}
    flags = {n: (m.training, dict(m._forward_hooks)) for n, m in model.named_modules()}
    random_state = torch.get_rng_state()
    groups = discover(model, inputs)
    plan = half(groups)
    small, masked = build(groups, plan), masked_copy(groups, plan)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert {n: (m.training, dict(m._forward_hooks)) for n, m in model.named_modules()} == flags
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    found = difference(masked, small, inputs)
    assert found.agrees, found
    assert groups.params(list(plan.widths.values())) == count_params(small)
    if any(w < g.width for w, g in zip(plan.widths.values(), groups.prunable, strict=True)):
        assert count_params(small) < count_params(model)
    assert all(g.reason for g in groups if not g.prunable)
    return groups, small


def widths(groups: Groups) -> dict[str, int]:
    """Dense widths of the prunable groups."""
    return {g.name: g.width for g in groups.prunable}


def reason(groups: Groups, name: str) -> str:
    """Why a group is frozen."""
    return str(groups[name].reason)
