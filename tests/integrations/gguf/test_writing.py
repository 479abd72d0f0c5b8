"""GGUF of Llamas: read back by transformers where its layers are alike, and by gguf where not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rlprune import hf
from rlprune.compaction import build, discover
from rlprune.errors import ConfigError
from rlprune.integrations.gguf.exporting import Gguf
from rlprune.plan import Plan
from rlprune.structure import Groups
from rlprune.zoo import transformers_tiny
from rlprune.zoo.networks import randomise
from tests.integrations.hf.test_vocabulary import byte_bpe, fast, network

transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def llama() -> Groups:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, inputs = transformers_tiny.build("llama", None)
        randomise(model.eval())
    return discover(model, inputs)


def planned(groups: Groups, widths: dict[str, int]) -> Plan:
    generator = torch.Generator().manual_seed(1)
    scores = {g.name: torch.rand(g.width, generator=generator) for g in groups.prunable}
    found = {g.name: widths.get(g.kind, g.width) for g in groups.prunable}
    found.update({name: width for name, width in widths.items() if "." in name})
    return Plan.from_widths(groups, found, scores)


def fields(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def tensors(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {t.name: t.data.reshape(t.shape[::-1]) for t in gguf.GGUFReader(path).tensors}


def rotary_halves(rows: np.ndarray[Any, Any], heads: int) -> torch.Tensor:
    """Rows in llama.cpp's order of neighbouring pairs, in transformers' order."""
    pairs = rows.reshape(heads, -1, 2, rows.shape[-1])
    return torch.from_numpy(pairs.swapaxes(1, 2).reshape(rows.shape).copy())


def test_transformers_reads_equal_layers_back(llama: Groups, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    small = build(llama, planned(llama, {"heads": 2, "neurons": 64}))
    told = hf.save_gguf(small, tmp_path / "model.gguf", dtype="F32")
    assert told["architecture"] == "llama"
    back = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        want = small(**llama.example_inputs)["logits"]
        assert torch.equal(back(**llama.example_inputs)["logits"], want)


def test_uneven_layers_have_numbers_of_their_own(llama: Groups, tmp_path: Path) -> None:
    names = [g.name for g in llama.prunable]
    heads, forward = names[0], names[1]
    plan = planned(llama, {heads: 1, forward: 32})
    plan = plan.drop(llama, ["model.layers.1.self_attn"])
    small = build(llama, plan)
    told = hf.save_gguf(small, tmp_path / "model.gguf")
    assert told["architecture"] == "deci"
    known = fields(tmp_path / "model.gguf")
    assert known["deci.attention.head_count"] == [2, 0]
    assert known["deci.attention.head_count_kv"] == [1, 0]
    assert known["deci.feed_forward_length"] == [32, 96]
    assert known["deci.attention.key_length"] == known["deci.rope.dimension_count"] == 8
    there = tensors(tmp_path / "model.gguf")
    own = small.state_dict()
    query = rotary_halves(there["blk.0.attn_q.weight"].astype(np.float32), 2)
    torch.testing.assert_close(query, own["model.layers.0.self_attn.q_proj.weight"].half().float())
    down = torch.from_numpy(there["blk.0.ffn_down.weight"].copy())
    assert torch.equal(down, own["model.layers.0.mlp.down_proj.weight"].half())
    assert not [name for name in there if name.startswith("blk.1.attn")]
    assert {"blk.1.ffn_norm.weight", "output.weight"} <= set(there)


def test_what_llama_cpp_cannot_run_is_not_written(llama: Groups, tmp_path: Path) -> None:
    without = planned(llama, {}).drop(llama, ["model.layers.1.mlp"])
    with pytest.raises(ConfigError, match=r"layer 1 has attention and no feed-forward.*=layers"):
        hf.save_gguf(build(llama, without), tmp_path / "model.gguf")
    both = without.drop(llama, ["model.layers.1.self_attn"])
    assert len(hf.save_gguf(build(llama, both), tmp_path / "model.gguf")["layers"]) == 1
    with pytest.raises(ConfigError, match="no type 'Q9_9'"):
        hf.save_gguf(llama.model, tmp_path / "other.gguf", dtype="Q9_9")
    with pytest.raises(ConfigError, match="not for BertModel"):
        hf.save_gguf(bert(), tmp_path / "other.gguf")
    assert not (tmp_path / "other.gguf").exists()


def bert() -> nn.Module:
    config = transformers.BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8,
    )  # fmt: skip
    with torch.random.fork_rng():
        found: nn.Module = transformers.BertModel(config)
    return found


def test_blocks_of_quantised_types_are_whole(llama: Groups, tmp_path: Path) -> None:
    limits = Gguf().limits(llama, True)
    assert limits.depth == "layers"
    rounded = discover(llama.model, llama.example_inputs, round_to=limits.round_to)
    assert [g.legal_widths() for g in rounded.prunable] == [(2, 4), (32, 64, 96)] * 2
    small = build(llama, planned(llama, {"heads": 2, "neurons": 64}))
    hf.save_gguf(small, tmp_path / "model.gguf", dtype="Q8_0")
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    matrices = {kind for name, kind in kinds.items() if "norm" not in name}
    assert matrices == {"Q8_0"}


def test_tokens_and_merges_go_along(tmp_path: Path) -> None:
    tokenizer = fast(byte_bpe())
    model = network("untied head", len(tokenizer) + 2).float()
    hf.save_gguf(model, tmp_path / "model.gguf", tokenizer)
    known = fields(tmp_path / "model.gguf")
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    assert known["tokenizer.ggml.model"] == "gpt2"
    assert known["tokenizer.ggml.pre"] == "gpt-2"
    assert known["tokenizer.ggml.merges"] == [" ".join(m) for m in content["model"]["merges"]]
    tokens, types = known["tokenizer.ggml.tokens"], known["tokenizer.ggml.token_type"]
    assert tokenizer.convert_tokens_to_ids(tokens[:-2]) == list(range(len(tokenizer)))
    assert types[:4] == [gguf.TokenType.CONTROL] * 4
    assert types[-2:] == [gguf.TokenType.UNUSED] * 2
    assert known["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert known["tokenizer.ggml.add_bos_token"]
