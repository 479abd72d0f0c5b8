"""The study as a whole: sections, the page, the command line, and concepts as budgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import rlprune
from rlprune.analysis.protect import protect
from rlprune.analysis.study import SECTIONS, Options, Study
from rlprune.analysis.tokens import Corpus, Source
from rlprune.cli.analyze import analyze
from rlprune.errors import ConfigError
from rlprune.plan import Plan

OPTIONS = Options(tokens=6000, each=900, length=64, words=1000, edit=0.02)


def test_sections_are_kept_and_shown_on_one_page(
    trained: tuple[Any, Any],
    programs: list[Source],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from tests.analysis.conftest import FILES, STDLIB

    model, tokenizer = trained
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    out = tmp_path / "out"
    given = ["--out", str(out), "--tokens", "6000", "--each", "900", "--length", "64", "--words",
             "1000", "--edit", "0.02"]  # fmt: skip
    paths = [str(STDLIB / name) for name in FILES]
    analyze(["all", str(tmp_path / "model"), *paths, *given])
    shown = capsys.readouterr().out
    for word in ("token classes: oracle", "edit ", "rank correlation"):
        assert word in shown
    page = (out / "report.html").read_text()
    assert len(page) < 5e6
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    for word in ("Redundancy", "Concepts", "memories", "Top windows", "data:image/png"):
        assert word in page
    study = Study(model, tokenizer, programs, out, OPTIONS, "model")
    for section in SECTIONS:
        stamp = (out / f"{section}.json").stat().st_mtime_ns
        found = study.run(section)
        assert found["identity"] == study.identity
        assert (out / f"{section}.json").stat().st_mtime_ns == stamp
    with safe_open(out / "top_windows.safetensors", "pt") as tensors:
        assert tensors.metadata()["identity"] == study.identity
        assert tensors.get_tensor("transformer.h.0.rows").shape == (128, 50)
    other = Study(model, tokenizer, programs, out, Options(tokens=3000, length=64), "model")
    assert other.run("layers")["identity"] != study.identity
    content = json.loads((out / "redundancy.json").read_text())
    assert {task["task"] for task in content["tasks"]} == {"token classes", "token roles"}


def test_what_is_wrong_is_named(trained: tuple[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least five"):
        Study(*trained, [Source("a = 1", "python")], tmp_path)
    with pytest.raises(ConfigError, match="'all' is unknown"):
        Study(*trained, [Source("a = 1", "python")] * 5, tmp_path).run("all")


def test_a_concept_is_a_budget_like_any_other(trained: tuple[Any, Any], corpus: Corpus) -> None:
    model = trained[0]
    budgets = protect(corpus, {"NUMBER": "102%", "NAME": 9.0}, most=4)
    assert list(budgets) == ["loss of NUMBER", "loss of NAME"]
    inputs = {"input_ids": corpus.batches[0][0]["input_ids"][:2, :32]}
    resolved = budgets["loss of NUMBER"].resolve(model, inputs, rlprune.discover(model, inputs))
    assert resolved.limit == pytest.approx(1.02 * resolved.dense)
    groups = rlprune.discover(model, inputs)
    small = rlprune.compact(model, inputs, Plan.uniform(groups, 0.1))
    torch.manual_seed(0)
    assert resolved.value(small, inputs) > resolved.limit
    assert resolved.value(model, inputs) == pytest.approx(resolved.dense)
    with pytest.raises(ConfigError, match="no token"):
        protect(corpus, {"WALRUS": 1.0})
