"""Concepts in the order of the units, and what pruning costs them: the benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rlprune
from rlprune.analysis import concept_rows, labelled, protective, token_losses
from rlprune.analysis.tokens import Corpus
from rlprune.bench import concepts
from rlprune.importance import scores
from rlprune.tasks import LanguageModeling


def test_labels_are_the_rows_that_are_asked_for(trained: tuple[Any, Any], corpus: Corpus) -> None:
    rows = concept_rows(corpus, "NUMBER")
    task, model = LanguageModeling(), trained[0]
    with torch.no_grad():
        found = [task.rows(task.answer(model, x), y, x) for x, y in labelled(corpus, rows)]
        losses = torch.cat([
            torch.nn.functional.cross_entropy(row.answers, row.labels, reduction="none")
            for row in found
        ])  # fmt: skip
    known = token_losses(model, corpus.batches)[torch.from_numpy(rows)]
    known = known[~torch.isnan(known)]
    assert len(losses) == len(known)
    assert float(losses.mean()) == pytest.approx(float(known.mean()), rel=1e-4)


def test_units_of_a_concept_come_forward(trained: tuple[Any, Any], corpus: Corpus) -> None:
    inputs = {"input_ids": corpus.batches[0][0]["input_ids"][:2, :32]}
    groups = rlprune.discover(trained[0], inputs, exclude=("*attn*",))
    task = LanguageModeling()
    every = scores(groups, "taylor", data=labelled(corpus), task=task)
    own = scores(groups, "taylor", data=labelled(corpus, concept_rows(corpus, "NUMBER")), task=task)
    found = protective(groups, corpus, ["NUMBER"])
    for name in (group.name for group in groups.prunable):
        shares = torch.stack([every[name] / every[name].mean(), own[name] / own[name].mean()])
        torch.testing.assert_close(found[name], shares.amax(0))


def test_the_benchmark_compares_on_other_programs(
    trained: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.analysis.conftest import FILES, STDLIB

    for part in trained:
        part.save_pretrained(tmp_path / "model")
    paths = [str(STDLIB / name) for name in FILES]
    options = ["--out", str(tmp_path), "--tokens", "4000", "--each", "1300", "--length", "64",
               "--shares", "0.7", "--seeds", "0", "--criteria", "redundancy", "protected",
               "--concepts", "STRING"]  # fmt: skip
    concepts.main([str(tmp_path / "model"), *paths, *options])
    shown = capsys.readouterr().out
    assert "70 % of the units, redundancy, merged" in shown
    cells = list((tmp_path / "cells").iterdir())
    assert len(cells) == 5
    stamps = [cell.stat().st_mtime_ns for cell in cells]
    concepts.main([str(tmp_path / "model"), *paths, *options])
    assert [cell.stat().st_mtime_ns for cell in cells] == stamps
    assert capsys.readouterr().out == shown
    assert np.isfinite([float(part) for part in shown.split() if part[:1].isdigit() and "." in part
                        and part[-1].isdigit()]).all()  # fmt: skip
