import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlprune import data as data_module
from rlprune import models
from rlprune.errors import CheckpointError, TrainingError
from rlprune.training import FineTune, finetune

CHILD = Path(__file__).with_name("resume_child.py")
spec = importlib.util.spec_from_file_location("resume_child", CHILD)
resume_child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(resume_child)


@pytest.mark.parametrize(("optimizer", "deadly"), [("sgd", (1, 3)), ("adamw", (4,))])
def test_killed_and_resumed_equals_uninterrupted_to_the_bit(tmp_path, optimizer, deadly):
    path = [str(CHILD.parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, str(CHILD), str(tmp_path), optimizer, *map(str, deadly)]
    done = subprocess.run(command, env=environment, timeout=120, capture_output=True, text=True)
    killed = f"{-signal.SIGKILL:d} False"
    assert done.stdout.splitlines() == [killed] * len(deadly) + ["0 False"], done.stderr
    found = load_file(tmp_path / "final.safetensors")
    expected = resume_child.train(None, optimizer).model.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


@pytest.fixture(scope="module")
def digits():
    return data_module.load("digits")


def train(digits, folder, seed=0, start=1, **options):
    config = FineTune(**{"epochs": 2, "batch_size": 256, "distill": False, **options})
    model = models.create("digits_cnn", seed=start, width=4)
    return finetune(model, None, digits, config, seed=seed, checkpoint_dir=folder)


def test_a_finished_training_is_not_repeated(digits, tmp_path):
    first = train(digits, tmp_path)
    stamp = (tmp_path / "last.pt").stat().st_mtime_ns
    again = train(digits, tmp_path)
    assert (tmp_path / "last.pt").stat().st_mtime_ns == stamp
    assert str(again.history) == str(first.history)
    a, b = first.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize(
    ("change", "what"),
    [({"lr": 0.01}, "configuration"), ({"seed": 1}, "seed"), ({"start": 2}, "initial weights")],
)
def test_the_record_of_another_training_is_refused(digits, tmp_path, change, what):
    train(digits, tmp_path, epochs=1)
    with pytest.raises(TrainingError, match=f"differs in {what}; use another folder"):
        train(digits, tmp_path, **{"epochs": 1, **change})


def test_an_unreadable_record_is_named(digits, tmp_path):
    (tmp_path / "last.pt").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"last.pt cannot be read"):
        train(digits, tmp_path)
