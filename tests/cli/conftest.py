from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rlprune
from rlprune.cli import main
from tests.conftest import Shared

SOURCE = Path(rlprune.__file__).resolve().parent.parent

TINY = (
    "model.width=8", "pretrain.epochs=4", "pretrain.batch_size=64", "agent=random",
    "evaluations=5", "finetune.epochs=1", "export=[]", "latency.repeats=2", "threads=1",
)  # fmt: skip

Done = subprocess.CompletedProcess[str]
Cli = Callable[..., Done]


def environment() -> dict[str, str]:
    found = dict(os.environ)
    paths = [str(SOURCE), str(SOURCE / "envs"), found.get("PYTHONPATH", "")]
    found["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    found.pop("HYDRA_FULL_ERROR", None)
    return found


@pytest.fixture(scope="session")
def trained(shared: Shared) -> Path:
    """Where the tests keep the dense network that the first of them trains."""
    return shared("cli")


@pytest.fixture
def cli(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run the command line in an empty folder, with a tiny job unless told otherwise.

    It runs in this process, which spares loading everything anew; tests whose subject is the
    process itself start one.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def call(*arguments: str, tiny: bool = True) -> Done:
        extra = (*TINY, f"pretrained_dir={trained}") if tiny else ()
        line = ["rlprune", *arguments, *extra]
        out, err, code = io.StringIO(), io.StringIO(), 0
        with (
            monkeypatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            _as_if_started(),
        ):
            patch.setattr(sys, "argv", line)
            try:
                main()
            except SystemExit as exited:
                code = int(exited.code or 0)
        return Done(line, code, out.getvalue(), err.getvalue())

    return call


@contextlib.contextmanager
def _as_if_started() -> Iterator[None]:
    """Undo what a run leaves in its process: modules of the user's, paths, handlers of logs."""
    root, paths, modules = logging.getLogger(), list(sys.path), set(sys.modules)
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        for handler in set(root.handlers) - set(handlers):
            handler.close()
        root.handlers[:], root.level = handlers, level
        sys.path[:] = paths
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if Path(file).is_relative_to(Path.cwd()):
                del sys.modules[name]
