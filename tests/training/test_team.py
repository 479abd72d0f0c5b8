"""Several processes train what one trains: parts of batches, statistics, steps, whole trainings."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rlprune import models
from rlprune.data import Data
from rlprune.errors import ConfigError, TrainingError
from rlprune.training import Pretrain, pretrain
from rlprune.training.statistics import SharedStatistics

CHILD = Path(__file__).with_name("team_child.py")
spec = importlib.util.spec_from_file_location("team_child", CHILD)
assert spec is not None
assert spec.loader is not None
team_child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(team_child)


@pytest.fixture(scope="module")
def data() -> Data:
    return team_child.digits()


def test_parts_of_a_batch_are_the_whole_batch(data: Data) -> None:
    for step, whole in enumerate(data.train_batches(3, 64, seed=5)):
        for count in (2, 3):
            parts = [
                list(data.train_batches(3, 64, seed=5, share=(k, count))) for k in range(count)
            ]
            inputs, labels = zip(*(part[step] for part in parts), strict=True)
            assert torch.equal(torch.cat(inputs), whole[0])
            assert torch.equal(torch.cat(labels), whole[1])
            assert max(map(len, labels)) - min(map(len, labels)) <= 1
    held = list(data.holdout_batches(60))
    parts = [list(data.holdout_batches(60, share=(k, 3))) for k in range(3)]
    assert [len(part) for part in parts] == [2, 1, 1]
    assert torch.equal(parts[0][1][0], held[3][0])
    assert list(data.holdout_batches(200, share=(1, 2))) == [], "one batch for two processes"


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_shared_statistics_of_one_process_are_its_own(process_group: None) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.BatchNorm1d(64))
    shared = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.BatchNorm1d(64))
    shared.load_state_dict(plain.state_dict())
    x = 5 + 0.01 * torch.randn(6, 3, 6, 6)
    for network in (plain.double(), shared.double()):
        with SharedStatistics() if network is shared else torch.enable_grad():
            answer = network(x.double())
        (answer * torch.arange(64)).square().sum().backward()
    for (name, one), two in zip(plain.named_parameters(), shared.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, rtol=1e-8, atol=1e-8), name
    for (name, one), two in zip(plain.named_buffers(), shared.buffers(), strict=True):
        assert torch.allclose(one, two, rtol=1e-10), name


def losses(model: nn.Module, data: Data, **options: Any) -> list[float]:
    recipe = Pretrain(epochs=2, batch_size=60, autocast=False, grad_clip=1.0, **options)
    return [row.train["loss"] for row in pretrain(model, data, recipe, seed=1).history[1:]]


def test_a_step_in_parts_is_the_whole_step(data: Data) -> None:
    model = models.create("mlp", in_features=64, num_classes=10, seed=0)
    flat = nn.Sequential(nn.Flatten(), model)
    assert losses(flat, data, accumulate=7) == pytest.approx(losses(flat, data), rel=1e-5)
    with pytest.raises(ConfigError, match="accumulate=61: must be from 1 to batch_size"):
        losses(flat, data, accumulate=61)


def test_activations_computed_again_train_the_same(data: Data) -> None:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 64), nn.Dropout(0.2)) for _ in range(3)]
    model = nn.Sequential(nn.Flatten(), nn.Sequential(*blocks), nn.Linear(64, 10))
    assert losses(model, data, checkpointing=True) == losses(model, data)
    with pytest.raises(TrainingError, match="has no repeated blocks without batch normalisation"):
        losses(models.create("digits_cnn"), data, checkpointing=True)


def run(folder: Path, epochs: int, processes: int, *more: str, restarts: int = 0) -> int:
    path = [str(CHILD.parents[2]), os.environ.get("PYTHONPATH", "")]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={processes}", f"--max-restarts={restarts}",
        str(CHILD), str(folder), str(epochs), *more,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    return subprocess.run(command, env=environment, timeout=280, check=False).returncode


def told(folder: Path) -> list[float]:
    rows = json.loads((folder / "history.json").read_text())
    return [row[key] for row in rows for key in ("train_loss", "holdout_loss") if row["epoch"]]


@pytest.mark.long
def test_two_processes_train_what_one_trains_and_go_on_for_one_another(
    tmp_path: Path, data: Data
) -> None:
    folders = [tmp_path / name for name in ("two", "again", "mixed")]
    for folder in folders:
        folder.mkdir()
    alone = team_child.train(None, 3, data, unused=True)
    expected = [row.flat()[k] for row in alone.history[1:] for k in ("train_loss", "holdout_loss")]
    for folder in folders[:2]:
        assert run(folder, 3, 2) == 0
    assert told(folders[0]) == pytest.approx(expected, rel=1e-4)
    assert told(folders[0]) == told(folders[1]), "the same to the last bit for the same number"
    for processes, deadly in ((2, "kill=2"), (1, "kill=3"), (2, "kill=0")):
        assert (run(folders[2], 3, processes, deadly) == 0) == (deadly == "kill=0")
    assert told(folders[2]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.long
def test_a_process_that_dies_is_started_again_and_goes_on(tmp_path: Path, data: Data) -> None:
    folders = [tmp_path / name for name in ("whole", "killed")]
    for folder in folders:
        folder.mkdir()
    assert run(folders[0], 3, 2) == 0
    assert run(folders[1], 3, 2, "kill=2", restarts=1) == 0
    assert (folders[1] / "killed-2").exists()
    assert told(folders[1]) == told(folders[0])
