"""Cache bytes, bytes on disk, time for a token, MACs at a length: of real transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rlprune import budgets, hf
from rlprune.budgets import KvBytes, Macs, TokenMs, count_macs, disk_bytes, kv_bytes
from rlprune.compaction import build, discover
from rlprune.errors import BudgetError
from rlprune.inputs import at_length
from rlprune.models import save_weights
from rlprune.plan import Plan
from rlprune.structure import Groups
from rlprune.zoo import transformers_tiny

pytest.importorskip("transformers")


def network(name: str) -> tuple[Any, Groups]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, inputs = transformers_tiny.build(name, None)
    return model.eval(), discover(model.eval(), inputs)


def plans(groups: Groups) -> list[Plan]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(2):
        widths = [
            int(torch.randint(1, g.width + 1, (), generator=generator)) for g in groups.prunable
        ]
        scores = {g.name: torch.rand(g.width, generator=generator) for g in groups.prunable}
        found.append(Plan.from_widths(groups, widths, scores))
    dropped = Plan.dense_plan(groups).drop(groups, list(groups.branches)[:1])
    return [*found, dropped] if groups.branches else found


def cache_tensors(cache: Any) -> list[torch.Tensor]:
    parts = [cache]
    if hasattr(cache, "cross_attention_cache"):
        parts = [cache.self_attention_cache, cache.cross_attention_cache]
    return [t for part in parts for layer in part.layers for t in (layer.keys, layer.values)]


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])
def test_cache_bytes_are_the_sum_of_what_the_cache_holds(name: str) -> None:
    _, groups = network(name)
    resolved = KvBytes(0.5).resolve(groups.model, groups.example_inputs, groups)
    assert (resolved.estimate is None) == (name == "t5")  # two attentions share a number there
    inputs = groups.example_inputs
    for plan in plans(groups):
        small = build(groups, plan)
        with torch.no_grad():
            out = small(**inputs, use_cache=True)
        sums = sum(
            t.numel() * t.element_size() / (t.shape[0] * t.shape[2])
            for t in cache_tensors(out.past_key_values)
            if t is not None
        )
        assert kv_bytes(small, inputs) == sums
        widths = list(plan.widths.values())
        if resolved.estimate is not None:
            assert resolved.estimate(widths) == sums
            assert resolved.estimate.many(np.array([widths, widths])).tolist() == [sums, sums]
    assert resolved.limit == resolved.dense / 2


def test_a_network_without_a_cache_is_refused() -> None:
    with pytest.raises(BudgetError, match="keyword"):
        kv_bytes(nn.Linear(2, 2), torch.zeros(1, 2))
    _, groups = network("vit")
    with pytest.raises(BudgetError, match="cache"):
        kv_bytes(groups.model, groups.example_inputs)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_bytes_on_disk_are_those_of_the_file(name: str, tmp_path: Path) -> None:
    _, groups = network(name)
    estimate = budgets.METRICS["disk_bytes"](0.5).resolve(groups.model, None, groups).estimate
    assert estimate is not None
    for at, plan in enumerate([Plan.dense_plan(groups), *plans(groups)]):
        small = build(groups, plan)
        folder = tmp_path / str(at)
        hf.save(small, folder)
        size = (folder / "model.safetensors").stat().st_size
        assert disk_bytes(small) == size
        assert estimate(list(plan.widths.values())) == size


def test_bytes_on_disk_of_any_network(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 1200))
    path = save_weights(model.half(), tmp_path / "model.safetensors")
    with_metadata = len(',"__metadata__":{"format":"pt"}')
    assert 0 <= disk_bytes(model) - path.stat().st_size <= with_metadata + 8


def test_macs_are_counted_at_a_length() -> None:
    model, groups = network("bert")
    inputs = groups.example_inputs
    longer = at_length(inputs, 25)
    assert longer["input_ids"].shape == longer["attention_mask"].shape == (2, 25)
    resolved = Macs(0.5, length=25).resolve(model, inputs, groups)
    assert resolved.dense == count_macs(model, longer) > 2.5 * count_macs(model, inputs)
    assert resolved.value(model, inputs) == resolved.dense
    with pytest.raises(BudgetError, match="length"):
        Macs(0.5, length=0)


def test_time_for_a_token_is_the_time_over_the_tokens() -> None:
    model, groups = network("gpt2")
    budget = TokenMs("80%", batch_size=2, repeats=3, warmup=1)
    resolved = budget.resolve(model, groups.example_inputs, groups)
    meter = resolved.fn
    assert resolved.dense > 0
    assert resolved.limit == pytest.approx(0.8 * resolved.dense)
    assert meter.tokens == 20  # type: ignore[attr-defined]
    again = resolved.restored(3.0, 2.0).fn
    assert again.meter.reference_ms == pytest.approx(40.0)  # type: ignore[attr-defined]


def test_they_are_found_by_name() -> None:
    found = budgets.parse(
        {"kv_bytes": 0.5, "disk_bytes": "20 kB", "token_ms": "70%", "macs": {"length": 64}}
    )
    assert [type(b).__name__ for b in found] == ["KvBytes", "DiskBytes", "TokenMs", "Macs"]
