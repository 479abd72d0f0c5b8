"""Probes, splits, controls, and the reduction of neurons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from rlprune.analysis import record
from rlprune.analysis.controls import control_labels, surface, untrained
from rlprune.analysis.examples import read_table, sample, text_batches, text_task, word_task
from rlprune.analysis.probes import elastic_net_path
from rlprune.analysis.redundancy import Labelling, redundancy
from rlprune.analysis.splits import by_group, standard_error, unseen
from rlprune.analysis.tokens import Corpus
from rlprune.errors import DataError

FEW = (0.01, 0.001)
"""Penalties, for speed."""


def planted(seed: int = 0, noise: float = 1.0) -> Labelling:
    """Three layers; from the second on four neurons, each copied five times, hold the class."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, 1800)
    groups = generator.integers(0, 60, 1800)
    texts = np.array([f"w{i}" for i in generator.integers(0, 400, 1800)], dtype=object)
    layers = {}
    for site in ("a", "b", "c"):
        x = generator.normal(size=(1800, 60)) * noise
        if site != "a":
            signal = (labels[:, None] == np.arange(4)) * 4.0 + generator.normal(size=(1800, 4))
            x[:, :20] = np.repeat(signal, 5, 1)
            x[:, 1:20] += 0.02 * generator.normal(size=(1800, 19))
        layers[site] = x.astype(np.float32)
    return Labelling("planted", layers, labels, texts, groups)


def test_the_planted_neurons_are_found() -> None:
    found = redundancy(planted(), most=(900, 400, 400), penalties=FEW)
    assert found.conclusive
    assert found.oracle > 0.9 > 0.4 > found.control
    assert found.surface < 0.4
    for delta in (0.03, 0.02, 0.01):
        stages = {stage.step: stage for stage in found.stages if stage.delta == delta}
        assert stages["layer"].choice == "b"
        assert stages["clusters"].neurons <= 60 - 16
        assert stages["minimal"].neurons <= 8
        assert stages["minimal"].test > found.oracle - 0.05
        assert stages["minimal"].random < stages["minimal"].test - 0.2
        assert {unit // 5 for _, unit in found.kept[delta] if unit < 20} >= {0, 1, 2}
    for name, own in found.sets.items():
        assert {site for site, _, _ in own} == {"b"}
        assert own[0][1] < 20, f"a planted neuron tells {name}"
        sizes = [abs(weight) for _, _, weight in own]
        assert sizes == sorted(sizes, reverse=True)
    assert found.ablation[-1][1] == found.ablation[-1][2] == pytest.approx(found.oracle)
    assert found.ablation[5][1] > found.ablation[5][2] + 0.3


def test_noise_is_called_inconclusive() -> None:
    task = planted()
    only = Labelling("noise", {"a": task.layers["a"]}, task.labels, task.texts, task.groups)
    assert not redundancy(only, most=(900, 400, 400), penalties=FEW).conclusive


def test_nothing_is_chosen_by_test_items() -> None:
    task = planted()
    split = by_group(task.groups, 0, (900, 400, 400))
    spoilt = task.labels.copy()
    spoilt[split.test] = np.random.default_rng(1).permutation(spoilt[split.test])
    other = Labelling(task.name, task.layers, spoilt, task.texts, task.groups)
    found, changed = (redundancy(t, most=(900, 400, 400), penalties=FEW) for t in (task, other))
    assert found.kept == changed.kept
    assert [s.held for s in found.stages] == [s.held for s in changed.stages]
    assert changed.oracle < found.oracle - 0.3


@pytest.mark.parametrize("penalty", [0.003, 0.0003])
def test_probes_meet_the_optimum_that_scikit_learn_finds(penalty: float) -> None:
    task = planted(noise=2.0)
    x = task.layers["a"][:600, :30] + (task.labels[:600, None] == 2) * 0.3
    mine = elastic_net_path(x, task.labels[:600], [penalty], ratio=0.3, iterations=2000)[0]
    rows = ((torch.from_numpy(x) - mine.mean) / mine.scale).numpy()
    theirs = LogisticRegression(
        solver="saga", l1_ratio=0.3, C=1 / (penalty * 600), max_iter=1800, tol=1e-5
    ).fit(rows, task.labels[:600])

    def loss(weight: Any, bias: Any) -> float:
        logits = torch.as_tensor(rows @ np.asarray(weight).T + np.asarray(bias))
        cross = torch.nn.functional.cross_entropy(logits, torch.from_numpy(task.labels[:600]))
        size = np.abs(weight).sum() * 0.3 + 0.35 * (np.asarray(weight) ** 2).sum()
        return float(cross) + penalty * float(size)

    best = loss(theirs.coef_, theirs.intercept_)
    assert loss(mine.weight.numpy(), mine.bias.numpy()) <= best + 1e-4


def test_splits_keep_programs_together() -> None:
    groups = np.random.default_rng(0).integers(0, 12, 500)
    split = by_group(groups)
    parts = [set(groups[part]) for part in (split.train, split.held, split.test)]
    assert all(parts)
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    with pytest.raises(DataError, match="at least three"):
        by_group(np.array([0, 1, 1]))
    texts = groups.astype(str).astype(object)
    assert len(unseen(texts, split)) == len(split.test)
    assert not len(unseen(np.full(500, "x", dtype=object), split))


def test_items_of_one_program_are_no_independent_witnesses() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=40), 25)
    together = standard_error(values, np.repeat(np.arange(40), 25))
    alone = standard_error(values, np.arange(1000))
    assert together == pytest.approx(values[::25].std(ddof=1) / 40**0.5)
    assert together == pytest.approx(5 * alone, rel=0.05)


def test_controls(trained: tuple[Any, Any]) -> None:
    labels = control_labels(np.array(["a", "b", "a", "c"] * 50, dtype=object), np.arange(200) % 3)
    assert (labels[::4] == labels[0]).all()
    assert (labels[::2] == labels[0]).all()
    marks = surface(["abc", "bca", "abc"])
    np.testing.assert_array_equal(marks[0], marks[2])
    assert (marks[0] != marks[1]).any()
    model = trained[0]
    state = torch.random.get_rng_state()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fresh = untrained(model)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    weight = fresh.transformer.h[1].mlp.c_fc.weight
    assert abs(float(weight.detach().std()) - 0.02) < 0.002
    assert torch.equal(weight, untrained(model).transformer.h[1].mlp.c_fc.weight)


def test_token_classes_of_a_real_network(
    trained: tuple[Any, Any], corpus: Corpus, tmp_path: Path
) -> None:
    recording = record(trained[0], corpus.batches, "residual", tmp_path / "a")
    blank = record(untrained(trained[0]), corpus.batches, "residual", tmp_path / "b")
    words = sample(corpus.words(), 2500)
    task = word_task(recording, words, "kind", blank)
    found = redundancy(task, deltas=(0.01,), most=(1200, 600, 600), penalties=FEW)
    assert found.conclusive
    assert found.untrained is not None
    assert found.oracle > found.majority + 0.1
    assert found.stages[-1].neurons < 96
    roles = word_task(recording, words, "role")
    assert "" not in roles.labels


def test_sentence_tasks_come_from_tables(trained: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = trained
    rows = [
        f"def f{i}(x):\\n    return x + {i}" if i % 2 else f"class A{i}: pass" for i in range(60)
    ]
    lines = [f'{{"func": "{text}", "target": {i % 2}}}' for i, text in enumerate(rows)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    texts, labels = read_table(tmp_path / "t.jsonl")
    assert len(texts) == 60
    recording = record(model, text_batches(texts, tokenizer, length=24), "residual", tmp_path / "r")
    task = text_task("defect", recording, texts, labels)
    at = recording.places()[:, 0] == 7
    np.testing.assert_allclose(
        task.layers[recording.sites[1]][7], recording[1].take(np.flatnonzero(at)).mean(0), rtol=1e-5
    )
    assert redundancy(task, deltas=(0.01,)).oracle > 0.9
    (tmp_path / "t.csv").write_text("text,kind\na,b\n")
    with pytest.raises(DataError, match="row 1: no text and label but text, kind"):
        read_table(tmp_path / "t.csv")
