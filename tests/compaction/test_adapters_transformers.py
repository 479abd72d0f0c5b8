"""Hugging Face models built from a config: heads or key-value groups and FFN neurons can go."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from rlprune.compaction import Workspace, build, discover, verify
from rlprune.plan import Plan
from rlprune.structure.groups import Groups
from rlprune.zoo import transformers_tiny
from rlprune.zoo.networks import randomise

HEADS = {
    "albert": 1, "bart": 6, "bert": 2, "clip": 4, "codegen": 2, "distilbert": 2, "gpt2": 2,
    "gpt_neox": 2, "llama": 2, "mixtral": 2, "qwen3": 2, "roberta": 2, "t5": 3, "t5-gated": 1,
    "vit": 2, "whisper": 6,
}  # fmt: skip
FFN = {name: 2 for name in HEADS} | {"albert": 1, "bart": 4, "clip": 4, "t5": 4, "whisper": 4}


def prepared(name: str, attention: str = "sdpa") -> tuple[nn.Module, Groups]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, inputs = transformers_tiny.build(name, attention)
        model = model.double().eval()
        randomise(model)
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    return model, discover(model, inputs)


def random_plan(groups: Groups, seed: int) -> Plan:
    generator = torch.Generator().manual_seed(seed)
    scores = {g.name: torch.rand(g.width, generator=generator) for g in groups.prunable}
    widths = [int(torch.randint(1, g.width + 1, (), generator=generator)) for g in groups.prunable]
    return Plan.from_widths(groups, widths, scores)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", list(transformers_tiny.BUILDERS))
def test_heads_and_neurons_of_a_transformer_go_exactly(name: str, attention: str) -> None:
    model, groups = prepared(name, attention)
    kinds = [g.kind for g in groups.prunable]
    assert kinds.count("heads") == HEADS[name], groups.table()
    assert kinds.count("neurons") >= FFN[name], groups.table()
    workspace = Workspace(groups)
    for seed in range(2):
        plan = random_plan(groups, seed)
        small = build(groups, plan)
        assert type(small) is type(model)
        assert verify(groups, small, plan) <= 1e-12
        assert verify(groups, workspace.build(plan), plan) <= 1e-12
        real = sum(p.numel() for p in small.parameters())
        assert real == groups.params(list(plan.widths.values()))


def test_bookkeeping_follows_layer_by_layer_and_the_shared_config_stays() -> None:
    model, groups = prepared("gpt2")
    first, second = (g.name for g in groups.prunable if g.kind == "heads")
    scores = {g.name: torch.arange(g.width).float() for g in groups.prunable}
    small = build(groups, Plan.from_widths(groups, {first: 1, second: 3}, scores))
    for layer, heads in zip(small.transformer.h, (1, 3), strict=True):
        assert layer.attn.num_heads == heads
        assert layer.attn.split_size == heads * 16
        assert layer.attn.head_dim == 16
        assert (layer.attn.c_attn.nx, layer.attn.c_attn.nf) == (64, 3 * heads * 16)
        assert (layer.attn.c_proj.nx, layer.attn.c_proj.nf) == (heads * 16, 64)
    assert small.config.num_attention_heads == model.config.num_attention_heads == 4


def test_grouped_query_attention_loses_whole_key_value_groups() -> None:
    model, groups = prepared("llama")
    heads = [g for g in groups.prunable if g.kind == "heads"]
    assert [g.width for g in heads] == [4, 4]
    scores = {g.name: torch.arange(g.width).float() for g in groups.prunable}
    small = build(groups, Plan.from_widths(groups, {heads[0].name: 3}, scores))
    attention = small.model.layers[0].self_attn
    assert attention.num_key_value_groups == 2
    assert attention.q_proj.out_features == 2 * attention.k_proj.out_features == 48
    dense = model.model.layers[0].self_attn
    torch.testing.assert_close(attention.k_proj.weight, dense.k_proj.weight[8:])
    torch.testing.assert_close(attention.q_proj.weight, dense.q_proj.weight[16:])


def test_what_cannot_be_pruned_says_why() -> None:
    for name, word in (("bert", "statistics mix"), ("llama", "reduces over all units")):
        _, groups = prepared(name)
        frozen = [g for g in groups if g.kind == "embedding"]
        assert frozen
        assert all(word in g.reason or "by number" in g.reason for g in frozen), groups.table()


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_a_smaller_transformer_trains_copies_and_reloads(name: str) -> None:
    model, groups = prepared(name)
    small = build(groups, random_plan(groups, 0)).train()
    out = small(**groups.example_inputs)
    out.logits.sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in small.parameters())
    twin = copy.deepcopy(small)
    twin.load_state_dict(small.state_dict())
    assert set(small.state_dict()) == set(model.state_dict())


def test_a_smaller_decoder_generates_with_its_cache() -> None:
    _, groups = prepared("llama")
    small = build(groups, random_plan(groups, 1)).eval()
    ids = groups.example_inputs["input_ids"][:1]
    cached = small.generate(ids, max_new_tokens=4, do_sample=False, use_cache=True, pad_token_id=0)
    plain = small.generate(ids, max_new_tokens=4, do_sample=False, use_cache=False, pad_token_id=0)
    assert torch.equal(cached, plain)
