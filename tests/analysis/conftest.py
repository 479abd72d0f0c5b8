"""A small GPT-2 with its tokenizer, trained for seconds on the standard library."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from rlprune.analysis.tokens import Corpus, Source, read, read_sources
from tests.conftest import Shared

STDLIB = Path(sysconfig.get_paths()["stdlib"])
SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "train_code_model.py"
FILES = ("ast.py", "bisect.py", "calendar.py", "cmd.py", "colorsys.py", "copy.py", "csv.py")


@pytest.fixture(scope="session")
def trained(shared: Shared) -> tuple[Any, Any]:
    """``(model, tokenizer)``."""
    import transformers

    folder = shared("code_model", _train)
    model = transformers.GPT2LMHeadModel.from_pretrained(folder)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


def _train(folder: Path) -> None:
    spec = importlib.util.spec_from_file_location("train_code_model", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main([
        str(folder), "--sources", str(STDLIB / "json"), "--steps", "50",
        "--layers", "3", "--width", "32", "--length", "64", "--vocabulary", "512",
        "--megabytes", "0.2",
    ])  # fmt: skip


@pytest.fixture(scope="session")
def programs() -> list[Source]:
    """Real programs of the standard library."""
    return read_sources([STDLIB / name for name in FILES])


@pytest.fixture(scope="session")
def corpus(trained: tuple[Any, Any], programs: list[Source]) -> Corpus:
    """Some thousand sub-words with classes and roles."""
    return read(programs, trained[1], length=64, batch_size=6, each=1300)
