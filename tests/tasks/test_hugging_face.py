"""A Hugging Face network on padded texts: search, distillation, report; padding has no effect."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import rlprune
from rlprune import Data, FineTune
from rlprune.problem import DataQuality
from rlprune.training import evaluate

LONGEST = 9


def texts(count: int = 150) -> dict[str, torch.Tensor]:
    """Texts of 3 to 9 tokens; the class is whether an even token comes first."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, LONGEST + 1, (count,), generator=generator)
    tokens = torch.randint(2, 40, (count, LONGEST), generator=generator)
    mask = torch.arange(LONGEST) < lengths[:, None]
    return {
        "input_ids": tokens.masked_fill(~mask, 0),
        "attention_mask": mask.long(),
        "labels": tokens[:, 0] % 2,
    }


def network(kind: str) -> nn.Module:
    sizes: dict[str, Any] = {"vocab_size": 40, "max_position_embeddings": 16, "pad_token_id": 0}
    torch.manual_seed(0)
    if kind == "text_classification":
        bert = transformers.BertConfig(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48,
            num_labels=2, **sizes,
        )  # fmt: skip
        return transformers.BertForSequenceClassification(bert).eval()
    llama = transformers.LlamaConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, bos_token_id=1, eos_token_id=1, **sizes,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(llama).eval()


def data_for(kind: str) -> Data:
    train, test = texts(), texts(40)
    if kind == "language_modeling":
        train, test = ({k: v for k, v in part.items() if k != "labels"} for part in (train, test))
    return Data(train, test=test, task=kind, holdout=40, num_classes=40 if "model" in kind else 2)


@pytest.mark.parametrize("kind", ["text_classification", "language_modeling"])
def test_pruned_end_to_end(kind: str, tmp_path: Path) -> None:
    data = data_for(kind)
    dense = network(kind)
    before = {key: value.clone() for key, value in dense.state_dict().items()}
    result = rlprune.prune(
        dense, data.example_inputs, data=data, task=kind, budgets={"macs": 0.7}, agent="random",
        evaluations=4, finetune=FineTune(**{**data.task.recipe, "epochs": 1}), exports=(),
        out_dir=tmp_path, progress=False,
    )  # fmt: skip
    assert result.model is not None
    metric = data.task.metric.name
    found = evaluate(result.model, data.test_batches(), task=data.task)
    assert result.report["pruned"][metric] == pytest.approx(found[metric], rel=1e-5)
    assert result.costs["macs"] <= 0.7 * result.report["dense"]["macs"]
    assert all(torch.equal(value, before[key]) for key, value in dense.state_dict().items())
    again = rlprune.load(tmp_path, model=dense)
    with torch.no_grad():
        pair = [model(**data.example_inputs).logits for model in (again, result.model)]
    assert torch.equal(*pair)


@pytest.mark.parametrize("kind", ["text_classification", "language_modeling"])
def test_padding_changes_no_score(kind: str) -> None:
    """A candidate's quality is that of its texts one by one, where nothing is padded."""
    data, dense, other = data_for(kind), network(kind), network(kind)
    with torch.no_grad():
        for parameter, generator in zip(other.parameters(), itertools.count(), strict=False):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(generator))
            parameter += 0.05 * noise
    inputs, labels = data.holdout
    single = []
    for at, length in enumerate(inputs["attention_mask"].sum(1).tolist()):
        text = {key: value[at : at + 1, :length] for key, value in inputs.items()}
        label = labels[at : at + 1]
        single.append((text, label if label.ndim == 1 else label[:, :length]))
    for score in ("logits", "kl", "loss", data.task.metric.name):
        options = {"kind": score, "precision": "float32", "task": data.task}
        whole = DataQuality(dense, (inputs, labels), **options)(other)
        assert whole == pytest.approx(DataQuality(dense, single, **options)(other), rel=1e-4)
