"""The commands on the page for text models are runs."""

from __future__ import annotations

import shlex
from pathlib import Path

import rlprune.integrations
from rlprune.cli.vocab import USAGE
from rlprune.export import FORMATS
from rlprune.run import RunSpec
from rlprune.run.config import compose

PAGE = (Path(rlprune.integrations.__file__).parent / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line)[1:]
    for line in PAGE.split("```bash\n")[1].split("```")[0].replace("\\\n", " ").splitlines()
    if line.startswith("rlprune ")
]


def test_every_command_composes() -> None:
    (vocabulary,) = [command for command in COMMANDS if command[0] == "vocab"]
    assert all(f"{item.partition('=')[0]}=" in USAGE for item in vocabulary[1:])
    runs = [command for command in COMMANDS if command[0] != "vocab"]
    assert len(runs) == 2
    asked = [RunSpec.from_config(compose(command)) for command in runs]
    assert [spec.exports for spec in asked] == [("hf_code",), ("gguf", "hf")]


def test_every_format_of_text_models_is_listed() -> None:
    for name in set(FORMATS) - {"standalone"}:
        assert f"`{name}`" in PAGE
