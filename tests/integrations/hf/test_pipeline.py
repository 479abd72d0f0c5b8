"""From a folder of the hub's layout to a smaller one: vocabulary, heads and neurons at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import rlprune
from rlprune import hf
from rlprune.budgets import disk_bytes
from rlprune.cli.job import run
from rlprune.errors import ConfigError
from rlprune.plan import Plan
from rlprune.run import factory_of
from rlprune.run.config import compose
from tests.integrations.hf.test_vocabulary import TRAINING, byte_bpe, fast, network, wordpiece

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of Python's source lines: assignments, other statements, the rest."""
    root = tmp_path_factory.mktemp("hub")
    tokenizer = fast(wordpiece())
    base = network("tied head with bias", len(tokenizer)).config
    base.num_labels = 3
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.BertForSequenceClassification(base).eval()
    hf.save(model, root / "dense", tokenizer)
    lines = [" ".join(line.split()) for line in TRAINING]
    labels = [0 if " = " in x else 1 if x.endswith(":") else 2 for x in lines]
    rows = [f"{y} {x}" for y, x in zip(labels, lines, strict=True) if x]
    (root / "train").write_text("\n".join(rows[:400]), encoding="utf-8")
    (root / "corpus").write_text("\n".join(lines[:400]), encoding="utf-8")
    return root


def test_one_call_gives_a_smaller_folder_of_the_same_layout(folder: Path, tmp_path: Path) -> None:
    result = hf.prune(
        folder / "dense", tmp_path, corpus=folder / "corpus",
        data={"name": "text", "train": folder / "train", "max_length": 24},
        budgets={"disk_bytes": 0.82}, task="text_classification", evaluations=6, agent="random",
        finetune=None, exclude=("bert.pooler",), progress=False,
    )  # fmt: skip
    pruned = tmp_path / "pruned"
    before = (folder / "dense" / "model.safetensors").stat().st_size
    assert result.costs["disk_bytes"] <= 0.82 * before
    assert (pruned / "model.safetensors").stat().st_size == result.costs["disk_bytes"]
    model, tokenizer = hf.load(pruned)
    report = json.loads((pruned / "report.json").read_text())["vocabulary"]
    assert report["tokens"]["after"] == len(tokenizer) < report["tokens"]["before"]
    assert disk_bytes(model) < report["disk_bytes"]["after"] < report["disk_bytes"]["before"]
    plan = Plan.from_json((pruned / "plan.json").read_text())
    assert plan == result.plan
    assert len(plan.vocabulary) == len(tokenizer)
    old = hf.load(folder / "dense")[1]
    for line in (folder / "corpus").read_text(encoding="utf-8").splitlines()[:50]:
        new = tokenizer(line)["input_ids"]
        assert [plan.vocabulary[at] for at in new] == old(line)["input_ids"]
    inputs = tokenizer(["x = 1", "if x:"], padding=True, return_tensors="pt")
    again = rlprune.load(tmp_path, trust=True)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, again(**inputs).logits)


def test_a_decoder_predicts_text_on_the_command_line(tmp_path: Path) -> None:
    tokenizer = fast(byte_bpe())
    hf.save(network("untied head", len(tokenizer)).float(), tmp_path / "dense", tokenizer)
    (tmp_path / "text").write_text("\n".join(TRAINING), encoding="utf-8")
    opened = rlprune.data.load(
        name="text_file", train=tmp_path / "text", tokenizer=tmp_path / "dense", length=16
    )
    part = {"_target_": "rlprune.integrations.hf.build", "path": str(tmp_path / "dense")}
    model = rlprune.models.create(**factory_of(part, opened))
    assert type(model).__name__ == "LlamaForCausalLM"
    opened.task.check_network(model.eval(), opened.example_inputs, opened.num_classes)


def test_a_folder_is_a_model_of_the_command_line(folder: Path) -> None:
    model = rlprune.models.create(
        _target_="rlprune.integrations.hf.build", path=str(folder / "dense"), num_classes=3
    )
    assert type(model).__name__ == "BertForSequenceClassification"
    assert model.config.num_labels == 3  # type: ignore[union-attr]


def test_the_command_line_does_both_in_one_run_and_goes_on(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = compose(
        [
            "model=hf", f"model.path={folder / 'dense'}", f"vocabulary.corpus={folder / 'corpus'}",
            "data=text", f"data.train={folder / 'train'}", "data.max_length=24",
            f"data.tokenizer={folder / 'dense'}", "task=text_classification",
            "budget=params_50", "budget.params=0.92", "agent=random",
            "evaluations=3", "finetune=none",
            "export=[hf_code]", "structure.exclude=[bert.pooler]", "latency.repeats=2", "threads=1",
        ]
    )  # fmt: skip
    result = run(config, tmp_path, redo=False)
    assert result is not None
    dense, _ = hf.load(folder / "dense")
    assert result.costs["params"] <= 0.92 * sum(p.numel() for p in dense.parameters())
    plan = Plan.from_json((tmp_path / "pruned" / "plan.json").read_text())
    model, tokenizer = hf.load(tmp_path / "pruned")
    assert len(plan.vocabulary) == len(tokenizer) < dense.config.vocab_size
    # of the whole network's parameters, those of the tokens that are gone are the first to go
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    with caplog.at_level("INFO"):
        again = run(config, tmp_path, redo=False)
    assert again is not None
    assert again.plan == result.plan
    assert "kept from before" in caplog.text
    assert "search: done before, kept" in caplog.text
    other = {**config, "vocabulary": {**config["vocabulary"], "min_count": 2}}
    with pytest.raises(ConfigError, match="vocabulary of another network, corpus or min_count"):
        run(other, tmp_path, redo=False)
    for asked in (None, {"corpus": 3, "min_count": 1}, {"corpus": "x"}):
        with pytest.raises(ConfigError, match="vocabulary"):
            run({**config, "vocabulary": asked}, tmp_path, redo=False)
    wrong = {**config, "model": {"name": "mlp"}}
    with pytest.raises(ConfigError, match=r"vocabulary\.corpus needs model=hf"):
        run(wrong, tmp_path, redo=False)
