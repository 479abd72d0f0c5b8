"""Exports limit the decisions before the search, and what comes out is what they can load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rlprune
from rlprune import hf
from rlprune.compaction import build, discover
from rlprune.errors import ConfigError
from rlprune.integrations.hf.limits import stock_limits
from rlprune.plan import Plan
from rlprune.run.limiting import limited
from rlprune.run.spec import StructureSpec
from rlprune.space.decision import decisions
from rlprune.zoo import transformers_tiny
from rlprune.zoo.networks import randomise

transformers = pytest.importorskip("transformers")


def dense(name: str) -> tuple[nn.Module, dict[str, Any]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, inputs = transformers_tiny.build(name, None)
        randomise(model.eval())
    return model, inputs


def test_a_stock_configuration_has_one_number_for_all_layers_or_none() -> None:
    bert = stock_limits(discover(*dense("bert")), True)
    assert bert.tie == ("bert.encoder.layer.*.intermediate.dense",)
    assert {name.rpartition(".")[2] for name in bert.exclude} == {"query", "dense"}
    assert bert.depth is False  # its layers normalise what a dropped branch leaves
    assert any("(heads) stays whole: no configuration of Bert" in line for line in bert.told)
    qwen = stock_limits(discover(*dense("qwen3")), True)
    assert qwen.tie == ("model.layers.*.self_attn.q_proj", "model.layers.*.mlp.gate_proj")
    assert (qwen.exclude, qwen.depth) == ((), "layers")


def test_places_that_share_a_number_are_tied_to_one_another() -> None:
    config = transformers.T5Config(
        vocab_size=99, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4
    )
    with torch.random.fork_rng():
        model = transformers.T5ForConditionalGeneration(config).eval()
    ids = torch.arange(8).reshape(2, 4)
    groups = discover(model, {"input_ids": ids, "decoder_input_ids": ids})
    (heads,) = [tie for tie in stock_limits(groups).tie if "SelfAttention" in tie]
    assert {part.split(".")[0] for part in heads.split("|")} == {"encoder", "decoder"}
    assert "EncDecAttention" in heads


def test_limits_join_what_the_user_asked_for() -> None:
    model, inputs = dense("llama")
    asked = StructureSpec(tie=("model.layers.0*",), depth=True, round_to=8)
    spec, told = limited(asked, ("gguf", "hf"), model, inputs)
    assert spec.depth == "layers"
    assert any(line.startswith("export=gguf: heads times") for line in told)
    groups = discover(model, inputs, **spec.options())
    (tie,) = [d for d in decisions(groups, spec.tie, False)]
    assert len(tie.columns) == len(groups.prunable) == 4
    assert all(len(set(w[1::2])) == 1 and w[1] % 32 == 0 for w in tie.widths)
    assert limited(asked, ("onnx", "hf_code"), model, inputs) == (asked, ())


def test_a_network_that_a_format_cannot_say_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="GGUF is written for LlamaForCausalLM"):
        limited(StructureSpec(), ("gguf",), *dense("gpt2"))
    with pytest.raises(ConfigError, match=r"export=hf leaves nothing.*\(heads\) stays whole"):
        limited(StructureSpec(exclude=("*.mlp",)), ("hf",), *dense("gpt2"))
    with pytest.raises(ConfigError, match="export 'vlm' is unknown; did you mean 'vllm'"):
        rlprune.run.RunSpec.of(budgets={"macs": 0.5}, exports=("vlm",))


def test_a_run_for_plain_transformers_and_llama_cpp(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    model, inputs = dense("llama")
    with torch.no_grad():
        goal = model(**inputs)["logits"]

    def score(network: nn.Module) -> float:
        return -float((network(**inputs)["logits"] - goal).square().mean())

    result = rlprune.prune(
        model, inputs, score=score, budgets={"params": 0.7}, agent="random", evaluations=4,
        exports=("hf", "gguf"), depth=True, out_dir=tmp_path, progress=False,
        latency={"repeats": 2},
    )  # fmt: skip
    written = result.report["exports"]
    assert not [entry for entry in written.values() if "error" in entry]
    assert any("share one width" in line for line in result.report["limits"])
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "pruned").eval()
    with torch.no_grad():
        assert torch.equal(back(**inputs).logits, result.model(**inputs)["logits"])  # type: ignore
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    assert fields["general.architecture"].contents() == "llama"
    assert fields["llama.block_count"].contents() == back.config.num_hidden_layers
    again = rlprune.load(tmp_path, model=model)
    with torch.no_grad():
        assert torch.equal(again(**inputs)["logits"], back(**inputs).logits)


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3"])
def test_dropped_layers_lower_the_number_of_layers(name: str, tmp_path: Path) -> None:
    groups = discover(*dense(name))
    first = [branch for branch in groups.branches if ".0." in branch]
    assert len(first) == 2
    plan = Plan.dense_plan(groups).drop(groups, first)
    small = build(groups, plan)
    assert not hf.save(small, tmp_path).residue
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert back.config.num_hidden_layers == 1
    assert len(getattr(back.config, "layer_types", None) or [0]) == 1
    with torch.no_grad():
        want = small(**groups.example_inputs)["logits"]
        assert torch.equal(back(**groups.example_inputs).logits, want)
        hf.follow(small)
        assert small.config.num_hidden_layers == 1  # type: ignore[union-attr]
        assert torch.equal(small(**groups.example_inputs)["logits"], want)
