"""A pruned network of transformers: out by `save`, back by plain transformers and by `load`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rlprune import hf
from rlprune.compaction import build, discover
from rlprune.errors import CheckpointError, ConfigError
from rlprune.plan import Plan
from rlprune.structure import Groups
from rlprune.zoo import transformers_tiny
from rlprune.zoo.networks import randomise

transformers = pytest.importorskip("transformers")

# from version 5 on, Llama's configuration insists on heads that divide the hidden width
ODD_LLAMA = "MistralForCausalLM" if transformers.__version__ >= "5" else "LlamaForCausalLM"
AUTO = {
    "bert": "AutoModelForSequenceClassification", "llama": "AutoModelForCausalLM",
    "gpt_neox": "AutoModelForCausalLM", "t5": "AutoModelForSeq2SeqLM",
}  # fmt: skip
STOCK = {  # (network, plan) -> the class that plain from_pretrained builds; the others need code
    ("llama", "half"): "LlamaForCausalLM",
    ("llama", "three quarters"): ODD_LLAMA,
    ("t5", "half"): "T5ForConditionalGeneration",
}
CODE = [("bert", "uneven"), ("gpt_neox", "dropped"), ("llama", "uneven")]


def dense(name: str) -> tuple[nn.Module, Groups]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, inputs = transformers_tiny.build(name, None)
        randomise(model.eval())
    return model, discover(model, inputs)


def planned(groups: Groups, how: str) -> Plan:
    generator = torch.Generator().manual_seed(1)
    scores = {g.name: torch.rand(g.width, generator=generator) for g in groups.prunable}
    if how == "dropped":
        return Plan.uniform(groups, 0.75, scores).drop(groups, list(groups.branches)[:1])
    if how == "uneven":
        widths = [max(1, g.width * (2 + at % 3) // 4) for at, g in enumerate(groups.prunable)]
        return Plan.from_widths(groups, widths, scores)
    return Plan.uniform(groups, {"half": 0.5, "three quarters": 0.75}[how], scores)


def folder_of(root: Path, name: str, how: str) -> Path:
    return root / f"{name} {how}".replace(" ", "-")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("saved")
    for name, how in [*STOCK, *CODE]:
        model, groups = dense(name)
        plan = planned(groups, how)
        small = build(groups, plan)
        before = small.config.to_dict()
        folder = folder_of(root, name, how)
        found = hf.save(small, folder, plan=plan)
        assert small.config.to_dict() == before == model.config.to_dict()
        assert bool(found.residue) == ((name, how) in CODE)
        with torch.no_grad():
            expected = small(**groups.example_inputs)["logits"]
        save_file({**groups.example_inputs, "expected": expected}, folder / "expected.tensors")
        (folder / "auto.json").write_text(json.dumps(["AutoModel", AUTO[name]]), encoding="utf-8")
    return root


def test_a_fresh_process_without_rlprune_computes_the_same_to_the_last_bit(saved: Path) -> None:
    environment = {**os.environ, "HF_MODULES_CACHE": str(saved.parent / "modules")}
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("plain_child.py")), str(saved)],
        check=True, env=environment, cwd=saved.parent,
    )  # fmt: skip


@pytest.mark.parametrize("case", [*STOCK, *CODE], ids=" ".join)
def test_load_computes_the_same_and_saves_it_again(
    saved: Path, tmp_path: Path, case: tuple[str, str]
) -> None:
    from safetensors.torch import load_file

    folder = folder_of(saved, *case)
    model, tokenizer = hf.load(folder)
    assert tokenizer is None
    tensors = load_file(folder / "expected.tensors")
    expected = tensors.pop("expected")
    with torch.no_grad():
        assert torch.equal(model(**tensors)["logits"], expected)
    if case in STOCK:
        assert type(model).__name__ == STOCK[case]
        assert not (folder / "modeling_pruned.py").exists()
    _, groups = dense(case[0])
    assert Plan.from_json((folder / "plan.json").read_text()) == planned(groups, case[1])
    hf.save(model, tmp_path)
    again = json.loads((tmp_path / "config.json").read_text())
    first = json.loads((folder / "config.json").read_text())
    assert again == first
    with torch.no_grad():
        assert torch.equal(hf.load(tmp_path)[0](**tensors)["logits"], expected)


def test_the_configuration_follows_the_plan(saved: Path) -> None:
    model, groups = dense("llama")
    small = hf.follow(build(groups, planned(groups, "half")))
    assert model.config.num_key_value_heads == 4
    config = small.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (4, 2, 8)
    assert config.intermediate_size == 48
    assert small.model.layers[0].self_attn.config is config
    mistral = json.loads((folder_of(saved, "llama", "three quarters") / "config.json").read_text())
    assert (mistral["num_attention_heads"], mistral["head_dim"]) == (6, 8)
    assert mistral["num_attention_heads"] * mistral["head_dim"] != mistral["hidden_size"]


def test_what_cannot_be_loaded_says_why(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        hf.load(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="only safetensors"):
        hf.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}}')
    with pytest.raises(CheckpointError, match="code of its own"):
        hf.load(tmp_path)
    with pytest.raises(ConfigError, match="no model of transformers"):
        hf.save(nn.Linear(2, 2), tmp_path)


def test_a_hub_name_that_cannot_be_reached_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    # The variable HF_HUB_OFFLINE is read once, when the hub's library is imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub._is_offline_mode", True, raising=False)
    with pytest.raises(CheckpointError, match="no folder, and the hub does not give it"):
        hf.load("some-organisation/some-network-that-is-nowhere")


def test_a_checkpoint_gets_another_head(saved: Path) -> None:
    model, _ = hf.load(
        folder_of(saved, "t5", "half"), architecture="T5ForSequenceClassification", num_labels=6
    )
    assert type(model).__name__ == "T5ForSequenceClassification"
    assert model.classification_head.out_proj.out_features == 6
