from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import rlprune
from rlprune.errors import CheckpointError
from rlprune.run.example import load_example, save_example


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run with its exports, of an untrained network."""
    from rlprune import data, models

    digits = data.load("digits")
    factory = {"name": "digits_cnn", "num_classes": 10, "in_channels": 1, "width": 8}
    return rlprune.prune(
        models.create(**factory, seed=3),
        digits.example_inputs,
        data=digits,
        budgets={"macs": 0.5},
        agent="uniform",
        evaluations=2,
        finetune=None,
        exports=("onnx", "torch_export", "standalone"),
        factory=factory,
        latency={"repeats": 2},
        out_dir=tmp_path_factory.mktemp("run"),
        progress=False,
    )


def samples(count: int) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_load_gives_the_same_network_back(run: Any) -> None:
    x = samples(5)
    loaded = rlprune.load(run.out_dir)
    assert not loaded.training
    assert torch.equal(loaded(x), run.model(x))
    untrained = rlprune.models.create("digits_cnn", num_classes=10, in_channels=1, width=8)
    assert torch.equal(rlprune.load(run.out_dir, model=untrained)(x), run.model(x))


def test_load_says_what_is_missing(run: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a folder"):
        rlprune.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"run\.json"):
        rlprune.load(tmp_path)
    record = json.loads((run.out_dir / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="no finished run"):
        rlprune.load(tmp_path)
    for name in ("plan.json", "model.safetensors"):
        (tmp_path / name).write_bytes((run.out_dir / name).read_bytes())
    (tmp_path / "run.json").write_text(json.dumps({**record, "factory": None}))
    with pytest.raises(CheckpointError, match="give model="):
        rlprune.load(tmp_path)
    wider = rlprune.models.create("digits_cnn", num_classes=10, in_channels=1, width=16)
    with pytest.raises(rlprune.RlpruneError, match="units"):
        rlprune.load(run.out_dir, model=wider)


def test_the_exported_program_and_the_file_open_without_rlprune(run: Any, tmp_path: Path) -> None:
    torch.save({"x": samples(7), "y": run.model(samples(7)).detach()}, tmp_path / "pair.pt")
    program = (
        f"import sys, torch; sys.path.append({str(run.out_dir)!r}); import standalone\n"
        f"pair = torch.load({str(tmp_path / 'pair.pt')!r}, weights_only=True)\n"
        f"model = torch.export.load({str(run.out_dir / 'model.pt2')!r}).module()\n"
        "for network in (model, standalone.load()):\n"
        "    assert torch.allclose(network(pair['x']), pair['y'], atol=1e-5)\n"
        "assert not any(name.split('.')[0] == 'rlprune' for name in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_onnx_file_runs_in_onnxruntime(run: Any) -> None:
    session = onnxruntime.InferenceSession(
        str(run.out_dir / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    x = samples(6)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, run.model(x).detach().numpy(), atol=1e-5)


def test_an_export_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    from rlprune.export import export

    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if float(x.sum()) > 0 else -x

    entry = export(Branching(), torch.ones(1, 3), tmp_path, "torch_export")
    assert "file" not in entry
    assert entry["error"]
    assert list(tmp_path.iterdir()) == []


def test_example_inputs_of_any_arrangement_come_back(tmp_path: Path) -> None:
    given = {"ids": torch.arange(4), "pair": (torch.ones(2), [None, 3, "a"]), "flag": True}
    assert save_example(tmp_path, given)
    found = load_example(tmp_path)
    assert torch.equal(found["ids"], given["ids"])
    assert torch.equal(found["pair"][0], torch.ones(2))
    assert found["pair"][1] == [None, 3, "a"]
    assert found["flag"] is True
    assert not save_example(tmp_path, object())
