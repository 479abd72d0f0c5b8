"""Recordings: rows are tokens, nothing else changes, and memory does not grow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlprune.analysis import clusters, correlation, record
from rlprune.analysis.parts import layers, matrix
from rlprune.analysis.recording import Recording
from rlprune.analysis.tokens import Corpus, Source, read
from rlprune.errors import ConfigError, DataError
from rlprune.zoo.transformers_tiny import build


def test_every_subword_belongs_to_the_token_it_lies_in(corpus: Corpus) -> None:
    for row in range(0, len(corpus.ids), 7):
        text = corpus.sources[corpus.source[row]].text
        start, end = corpus.span[row]
        label = corpus.label[row]
        if label < 0:
            assert not text[start:end].strip().strip("\\")  # joined lines
        else:
            first, last = corpus.labels[corpus.source[row]][label][:2]
            at = start + len(text[start:end]) - len(text[start:end].lstrip())
            assert first <= at < last
    words = corpus.words()
    assert set(words.kind) == {"COMMENT", "KEYWORD", "NAME", "NUMBER", "OPERATOR", "STRING"}
    assert (words.text[words.kind == "NUMBER"] != "").all()
    whole = words[words.text == "import"]
    assert len(whole) > 3
    assert set(whole.kind) <= {"KEYWORD"}


def test_characters_are_not_bytes(trained: tuple[Any, Any]) -> None:
    text = 'naïve = "日本語のテキスト"  # 注釈\nzahl = 4711\n'
    words = read([Source(text, "python")], trained[1]).words()
    assert " ".join(words.text) == 'naïve = "日本語のテキスト" # 注釈 zahl = 4711'
    assert words.kind.tolist()[-1] == "NUMBER"


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_are_tokens_in_order_without_padding(
    trained: tuple[Any, Any], programs: list[Source], tmp_path: Path, side: str
) -> None:
    model, tokenizer = trained
    small = read(programs[1:4], tokenizer, length=50, batch_size=3, padding_side=side, most=900)
    recording = record(model, small.batches, ["transformer.wte", "residual"], tmp_path)
    assert len(recording) == len(small.ids) == 900
    embedding = model.transformer.wte.weight.detach().numpy()
    np.testing.assert_array_equal(recording[0].take(np.arange(900)), embedding[small.ids])
    assert recording.widths == (32, 32, 32, 32)
    places = recording.places()
    assert (np.diff(places[:, 0]) >= 0).all()
    pieces = np.concatenate(list(recording.chunks(77)))
    assert pieces.shape == recording.shape == (900, 128)
    np.testing.assert_array_equal(pieces[[5, 899]], recording.take([5, 899]))


@pytest.mark.parametrize("name", ["gpt2", "llama", "roberta", "qwen3", "t5-gated", "bert"])
def test_feed_forward_and_heads_of_any_model_bit_equal(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = build(name)
    model.eval()
    found = layers(model)
    assert len(found) == 2
    with torch.no_grad():
        before = model(**inputs)[0]
        recording = record(model, [inputs], ["residual", "ffn", "heads"], tmp_path)
        assert torch.equal(before, model(**inputs)[0])
    assert len(recording) == int(inputs.get("attention_mask", inputs["input_ids"] * 0 + 1).sum())
    down = matrix(model, found[1].down)
    assert recording[str(found[1].site("ffn"))].shape[1] == down.shape[1]
    assert matrix(model, found[1].up).shape == (down.shape[1], down.shape[0])
    assert bool(found[1].gate) == (name in ("llama", "qwen3", "t5-gated"))


def test_a_recording_is_used_again_only_for_the_same(
    trained: tuple[Any, Any], corpus: Corpus, tmp_path: Path
) -> None:
    model = trained[0]
    first = record(model, corpus.batches[:2], "ffn", tmp_path)
    stamp = (tmp_path / "recording.json").stat().st_mtime_ns
    assert record(model, corpus.batches[:2], "ffn", tmp_path) == first
    assert (tmp_path / "recording.json").stat().st_mtime_ns == stamp
    assert Recording.open(tmp_path) == first
    for batches, sites in ((corpus.batches[:3], "ffn"), (corpus.batches[:2], "heads")):
        with pytest.raises(ConfigError, match="another network, other batches or other sites"):
            record(model, batches, sites, tmp_path)
    with pytest.raises(ConfigError, match="no site 'x' was recorded"):
        first["x"]
    with pytest.raises(DataError, match="nothing to record"):
        record(model, [], "ffn", tmp_path)


def test_correlations_and_clusters_of_a_recording(
    trained: tuple[Any, Any], corpus: Corpus, tmp_path: Path
) -> None:
    recording = record(trained[0], corpus.batches, "ffn", tmp_path)
    whole = recording.take(np.arange(len(recording)))
    np.testing.assert_allclose(
        correlation(recording, 501), np.corrcoef(whole.T.astype(np.float64)), rtol=0, atol=1e-8
    )
    np.testing.assert_array_equal(clusters(recording), clusters(whole))


_STREAM = """
import sys, torch, resource
from rlprune.analysis import record, correlation
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.GELU())
torch.manual_seed(0)
class Batches:
    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        for _ in range(int(sys.argv[1])):
            yield torch.randn(1000, 16, generator=generator)
recording = record(model, Batches(), "1", sys.argv[2])
assert recording.shape == (1000 * int(sys.argv[1]), 64)
correlation(recording)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.long
def test_memory_does_not_grow_with_the_number_of_tokens(tmp_path: Path) -> None:
    peaks = []
    for count in (100, 1000):
        command = [sys.executable, "-c", _STREAM, str(count), str(tmp_path / str(count))]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True).stdout))
    assert peaks[1] <= 1.05 * peaks[0], peaks
