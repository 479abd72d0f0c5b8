"""Run folders: no stranger's code runs, damage is told, one process writes, nothing is stale."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rlprune
from rlprune import FineTune
from rlprune.errors import CheckpointError, ConfigError
from rlprune.models.trust import is_harmless
from rlprune.run import RunFolder

CALLED: list[Any] = []


def strangers(**options: Any) -> nn.Module:
    CALLED.append(options)
    return rlprune.models.create("digits_cnn", num_classes=10, in_channels=1, width=8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run of an untrained network."""
    digits = rlprune.data.load("digits")
    factory = {"name": "digits_cnn", "num_classes": 10, "in_channels": 1, "width": 8}
    return rlprune.prune(
        rlprune.models.create(**factory, seed=3),
        digits.example_inputs,
        data=digits,
        budgets={"macs": 0.5},
        agent="uniform",
        evaluations=2,
        finetune=None,
        exports=(),
        factory=factory,
        latency={"repeats": 2},
        out_dir=tmp_path_factory.mktemp("run"),
        progress=False,
    )


@pytest.fixture
def copy(run: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run.out_dir, tmp_path / "copy"))


@pytest.mark.parametrize(
    "factory",
    [
        {"name": f"{__name__}.strangers"},
        {"_target_": f"{__name__}.strangers"},
        {"name": "os.system", "command": "true"},
        {"name": "timm.create_model", "model_name": "resnet18", "checkpoint_path": "x.pth"},
        {"name": "torchvision.datasets.utils.download_url", "url": "file:///etc/passwd"},
        ["digits_cnn"],
    ],
)
def test_a_function_that_a_folder_names_is_not_called(copy: Path, factory: Any) -> None:
    record = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**record, "factory": factory}))
    CALLED.clear()
    with pytest.raises(CheckpointError, match=r"trust=True|does not say how"):
        rlprune.load(copy)
    assert CALLED == []


def test_ones_own_function_is_called_when_the_folder_is_trusted(copy: Path, run: Any) -> None:
    record = json.loads((copy / "run.json").read_text())
    record["factory"] = {"name": f"{__name__}.strangers"}
    (copy / "run.json").write_text(json.dumps(record))
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rlprune.load(copy, trust=True)(x), run.model(x))
    assert torch.equal(rlprune.load(copy, model=strangers())(x), run.model(x))


def test_names_that_are_known_here_are_harmless() -> None:
    assert is_harmless({"name": "resnet56", "num_classes": 10})
    assert is_harmless({"name": "torchvision/resnet18", "num_classes": 10, "weights": None})
    assert is_harmless({"_target_": "timm.create_model", "model_name": "resnet18"})
    assert not is_harmless({"name": "timm.create_model", "model_name": "hf-hub:someone/model"})
    assert not is_harmless({"name": "torchvision/resnet18", "weights": "DEFAULT"})


@pytest.mark.parametrize("name", ["model.safetensors", "plan.json"])
def test_one_flipped_bit_is_told(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[-3] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} is damaged"):
        rlprune.load(copy)


def test_two_processes_do_not_work_in_one_folder(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    x = settings["data"].example_inputs
    settings |= {"stages": ("search",), "out_dir": tmp_path}
    with RunFolder(tmp_path).lock(), pytest.raises(ConfigError, match=r"process \d+ works in"):
        rlprune.prune(dense, x, **settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock"]
    assert rlprune.prune(dense, x, **settings).plan


def test_a_stage_alone_leaves_nothing_stale_behind(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    x = settings["data"].example_inputs
    settings |= {"out_dir": tmp_path, "exports": ("onnx",)}
    first = rlprune.prune(dense, x, **settings)
    assert (tmp_path / "model.onnx").exists()
    assert first.report
    longer = {**settings, "finetune": FineTune(epochs=3, lr=0.02), "redo": True}
    rlprune.prune(dense, x, **longer, stages=("finetune",))
    assert not list(tmp_path.glob("report.*"))
    assert not (tmp_path / "model.onnx").exists()
    again = rlprune.prune(dense, x, **longer)
    assert len(again.report["finetune"]["history"]) == 4
    more = {**longer, "evaluations": 9}
    last = rlprune.prune(dense, x, **more)
    assert last.report["evaluations"] == len(last.history) == 9
    other = {**more, "budgets": {"macs": 0.35}, "stages": ("search",)}
    rlprune.prune(dense, x, **other)
    assert not (tmp_path / "model.safetensors").exists()
    with pytest.raises(CheckpointError, match="no finished run"):
        rlprune.load(tmp_path)


def test_without_fine_tuning_no_network_is_measured_twice(run: Any) -> None:
    before, after = run.report["pruned_before_finetune"], run.report["pruned"]
    assert before["accuracy"] == after["accuracy"]
    assert before["holdout_accuracy"] == after["holdout_accuracy"]


def test_a_refused_run_does_not_record_itself(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    from rlprune.run import RunSpec, launch

    data, x = settings.pop("data"), torch.zeros(1, 1, 8, 8)
    settings |= {"out_dir": tmp_path, "stages": ("search",)}
    started: list[str] = []

    def go(name: str, **changed: Any) -> None:
        spec = RunSpec.of(**{**settings, **changed})
        launch(spec, dense, x, data=data, on_start=lambda: started.append(name))

    go("first")
    with pytest.raises(ConfigError, match="other settings"):
        go("second", budgets={"macs": 0.4})
    with pytest.raises(ConfigError, match="other settings"):
        go("third", budgets={"macs": [0.6, 0.4]})
    go("again")
    assert started == ["first", "again"]
