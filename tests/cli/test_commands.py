"""Every command that README and help texts show is understood, and the cheap ones are run."""

from __future__ import annotations

import itertools
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from rlprune.cli import COMMANDS
from rlprune.cli.arguments import continued, listed, own_agent, own_model
from rlprune.run import RunSpec, compose
from rlprune.run.config import config_dir
from tests.cli.conftest import Cli
from tests.cli.test_trust import recorded
from tests.conftest import REPOSITORY

FUNCTIONS = """
def energy(model, example_inputs):
    return 1.0

def net():
    raise AssertionError("only named here")

make_net = net
"""
AGENT = """
from rlprune import search

class Agent(search.Agent):
    def __init__(self, step=0.1):
        super().__init__()
"""


def shown() -> list[str]:
    """Commands of README (blocks and code in lines) and of ``rlprune --help``."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    texts = re.findall(r"```bash\n(.*?)```", readme, re.S)
    found = [line for text in texts for line in text.replace("\\\n", " ").splitlines()]
    found += re.findall(r"`(rlprune [^`]+)`", re.sub(r"```.*?```", "", readme, flags=re.S))
    help_ = yaml.safe_load((config_dir() / "hydra" / "help" / "rlprune.yaml").read_text())
    for part in ("template", "footer"):
        found += [re.split(r" {2,}", line.strip())[0] for line in help_[part].splitlines()]
    return list(dict.fromkeys(command for text in found for command in _commands(text)))


def _commands(text: str) -> Iterator[str]:
    """The rlprune commands of a line, without comments."""
    text = re.sub(r"\s#.*", "", " ".join(text.split()))
    for part in re.split(r"&&|, (?=rlprune )", text):
        words = part.split()
        if words[:1] == ["rlprune"] and "GROUP=OPTION" not in part and "KEY=" not in part:
            yield part.strip().rstrip(":")


COMMANDS_SHOWN = shown()


def words_of(command: str) -> list[str]:
    """The arguments, with what stands for a folder of the reader's put in place."""
    words = shlex.split(command)[1:]
    filled = [
        re.sub(r"outputs/\.\.\.|outputs/my-run|outputs/sweep", "outputs/own", w) for w in words
    ]
    return [re.sub(r"=\.\.\.$", "=x", w) for w in filled if w != "..."]


def test_commands_are_found() -> None:
    assert len(COMMANDS_SHOWN) > 30
    assert "rlprune discover model=resnet56" in COMMANDS_SHOWN


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the reader stands: functions, configurations and a run of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_pkg").mkdir()
    (tmp_path / "my_pkg" / "__init__.py").write_text(FUNCTIONS)
    (tmp_path / "my_pkg" / "module.py").write_text(AGENT)
    (tmp_path / "my_configs" / "model").mkdir(parents=True)
    mine = (config_dir() / "model" / "mlp.yaml").read_text()
    (tmp_path / "my_configs" / "model" / "mine.yaml").write_text(mine)
    (tmp_path / "outputs" / "own").mkdir(parents=True)
    recorded(tmp_path / "outputs" / "own", "seed=1")
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_pkg"]:
        del sys.modules[name]


@pytest.mark.parametrize("command", COMMANDS_SHOWN)
def test_every_command_shown_is_understood(command: str, folder: Path, cli: Cli) -> None:
    words = words_of(command)
    if any(w.startswith("--") and w != "--config-dir" for w in words[:2]):
        done = cli(*words, tiny=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout
    elif words and words[0] in COMMANDS:
        beside(words[0], words[1:], cli)
    else:
        run(words)


def run(words: Sequence[str]) -> None:
    """A run, or the first of a sweep: composed, and every option of it read."""
    swept = "-m" in words
    words = [w.partition(",")[0] if swept and "[" not in w else w for w in words if w != "-m"]
    line = own_model(own_agent(listed(continued(words))))
    added = [Path(after) for flag, after in itertools.pairwise(line) if flag == "--config-dir"]
    config = compose(
        [
            w
            for w in line
            if not w.startswith("--") and Path(w) not in added and w[:10] != "hydra.run."
        ],
        added[0] if added else None,
    )
    RunSpec.from_config(config)


def beside(name: str, words: Sequence[str], cli: Cli) -> None:
    """A command beside a run: run where that is cheap, else read as it reads it."""
    if name == "discover":
        done = cli(name, *words, tiny=False)
        assert done.returncode == 0, done.stderr
        assert "channels" in done.stdout
    elif name == "report":
        assert cli(name, *words, tiny=False).returncode in (0, 1)
    elif name == "bench":
        RunSpec.from_config(compose([f"+bench={words[0]}", *words[1:]]))
    elif name == "zoo":
        args = import_module("rlprune.zoo.__main__").parser().parse_args(list(words))
        assert import_module("rlprune.zoo").names(*args.names)
    elif name == "vocab":
        assert import_module("rlprune.cli.vocab")._options(list(words))
    else:
        assert cli(name, "--help", tiny=False).returncode == 0
