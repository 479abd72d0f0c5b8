"""Fewer experts answer as all of them do where the router may not choose the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rlprune import hf
from rlprune.compaction import discover
from rlprune.errors import ConfigError
from rlprune.integrations.hf.experts import drop_experts, mixtures
from rlprune.zoo import transformers_tiny
from rlprune.zoo.networks import randomise

transformers = pytest.importorskip("transformers")


def mixture(name: str) -> tuple[Any, dict[str, Any]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "mixtral":
            model, inputs = transformers_tiny.build(name, None)
        else:
            config = transformers.Qwen3MoeConfig(
                vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, head_dim=8, moe_intermediate_size=16, num_experts=6,
                num_experts_per_tok=2, norm_topk_prob=False, intermediate_size=16,
            )  # fmt: skip
            config._experts_implementation = "eager"
            model = transformers.Qwen3MoeForCausalLM(config)
            inputs = {"input_ids": torch.randint(2, 99, (2, 10))}
        randomise(model.double().eval())
    return model, inputs


def without(model: nn.Module, kept: dict[str, torch.Tensor]) -> nn.Module:
    """The dense network whose routers never choose the other experts."""
    for found in mixtures(model):
        router = model.get_submodule(found.router)
        gone = torch.ones(found.count, dtype=torch.bool)
        gone[kept[found.path]] = False

        def forbid(module: Any, args: Any, output: Any, gone: torch.Tensor = gone) -> Any:
            logits = nn.functional.linear(args[0].flatten(0, -2), module.weight)
            logits = logits.masked_fill(gone, -torch.inf)
            if isinstance(output, torch.Tensor):
                return logits.reshape(output.shape)
            best = logits.softmax(-1, dtype=torch.float).topk(module.top_k, dim=-1)
            values = best.values
            if getattr(module, "norm_topk_prob", True):
                values = values / values.sum(-1, keepdim=True)
            return logits, values.to(logits.dtype), best.indices

        router.register_forward_hook(forbid)
    return model


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_the_masked_twin_and_stock_transformers_answer_alike(name: str, tmp_path: Path) -> None:
    model, inputs = mixture(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    small, kept = drop_experts(model, 3, inputs)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert [len(numbers) for numbers in kept.values()] == [3, 3]
    assert [found.count for found in mixtures(small)] == [3, 3]
    with torch.no_grad():
        got = small(**inputs).logits
        want = without(model, kept)(**inputs).logits
    assert (got - want).abs().max() <= 1e-12 * want.abs().max()
    assert not hf.save(small, tmp_path).residue
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    back.config._experts_implementation = "eager"  # others take no double precision
    with torch.no_grad():
        assert torch.equal(back(**inputs).logits, got)


def test_neurons_of_the_experts_left_are_pruned_on() -> None:
    model, inputs = mixture("mixtral")
    small, _ = drop_experts(model, 2, inputs)
    groups = discover(small, inputs)
    neurons = [group for group in groups if "experts" in group.name]
    assert {(group.width, group.prunable) for group in neurons} == {(96, True)}


def test_what_cannot_be_dropped_says_why() -> None:
    model, inputs = mixture("mixtral")
    with pytest.raises(ConfigError, match=r"keep is 1, it must be in 2\.\.4"):
        drop_experts(model, 1, inputs)
    with pytest.raises(ConfigError, match="no mixture"):
        drop_experts(transformers_tiny.build("llama", None)[0], 1, inputs)
