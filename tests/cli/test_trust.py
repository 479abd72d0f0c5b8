"""``run=FOLDER`` of a folder that came from elsewhere runs no function that it names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlprune.cli.arguments import continued
from rlprune.cli.trust import SIGNATURE, is_own, sign
from rlprune.data import cache_dir
from rlprune.errors import ConfigError


def recorded(folder: Path, *overrides: str, added: Path | None = None) -> Path:
    """A run folder with a command line, unsigned."""
    hydra = folder / ".hydra"
    hydra.mkdir()
    lines = "".join(f"- {json.dumps(item)}\n" for item in overrides)
    (hydra / "overrides.yaml").write_text(lines or "[]\n")
    sources = [{"path": str(added), "provider": "command-line", "schema": "file"}] if added else []
    content = {"hydra": {"runtime": {"config_sources": sources}}}
    (hydra / "hydra.yaml").write_text(json.dumps(content))
    return folder


STRANGE = [
    ["+budget.own._target_=os.system", "+budget.own.limit=1"],
    ["model=custom", "model._target_=os.system"],
    ["model.name=os.system"],
    ["data.name=os.system"],
    ["agent=custom", "++agent._target_=os:system"],
    ["++importance._target_=os.system"],
    ["importance.criterion=os.system"],
    ["compensation=os.system"],
    ["compensation=[bn,os.system]"],
    ["task.name=os.system"],
    ["evaluator.compensation=[os.system]"],
    ["+budget.device.command='touch {onnx}'", "+budget.device.limit=1"],
    ["callbacks=[os.system]"],
    ["+hydra.callbacks.own._target_=os.system"],
    ["hydra/launcher=joblib"],
]


@pytest.mark.parametrize("overrides", STRANGE, ids=" ".join)
def test_functions_of_a_strangers_command_line_are_not_called(
    overrides: list[str], tmp_path: Path
) -> None:
    folder = recorded(tmp_path, *overrides)
    with pytest.raises(ConfigError, match=r"recorded elsewhere and holds .*trust=true"):
        continued([f"run={folder}"])
    trusting = continued([f"run={folder}", "trust=true", "seed=1"])
    assert [*overrides, "seed=1"] == trusting[: len(overrides) + 1]
    assert "trust=true" not in trusting
    sign(folder / ".hydra")
    assert is_own(folder / ".hydra")
    assert continued([f"run={folder}", "seed=1"]) == trusting


def test_a_strangers_configurations_are_not_read(tmp_path: Path) -> None:
    folder = recorded(tmp_path, "budget=mine", added=tmp_path)
    with pytest.raises(ConfigError, match="--config-dir"):
        continued([f"run={folder}"])


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model=resnet56", "model.checkpoint=weights/x.safetensors", "budget.macs=0.3", "seed=3"],
        ["data=text", "data.train=texts.tsv", "model=text_transformer", "agent=cem"],
        ["model=hf", "model.path=folder", "compensation=[merge,bn]", "importance=taylor"],
    ],
    ids=" ".join,
)
def test_what_rlprune_brings_needs_no_trust(overrides: list[str], tmp_path: Path) -> None:
    folder = recorded(tmp_path, *overrides)
    (tmp_path / "texts.tsv").touch()
    assert continued([f"run={folder}"])[: len(overrides)] == overrides


def test_a_signature_holds_for_what_was_signed(tmp_path: Path) -> None:
    folder = recorded(tmp_path, "seed=3")
    sign(folder / ".hydra")
    overrides = folder / ".hydra" / "overrides.yaml"
    overrides.write_text('- "+budget.own._target_=os.system"\n- "+budget.own.limit=1"\n')
    assert not is_own(folder / ".hydra")
    with pytest.raises(ConfigError, match=r"budget\.own\._target_=os\.system"):
        continued([f"run={folder}"])
    assert (cache_dir() / "signing-key").stat().st_mode & 0o077 == 0, "for this user alone"
    (folder / ".hydra" / SIGNATURE).write_text("\u00e4\n")
    assert not is_own(folder / ".hydra")
