"""Costs by a table, in ONNX Runtime, and by a command that runs elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

from rlprune import models
from rlprune.budgets import Device, Energy, OnnxLatency, count_macs, count_params, parse
from rlprune.compaction import build, discover
from rlprune.errors import BudgetError
from rlprune.plan import Plan
from rlprune.structure import Groups

X = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def groups() -> Groups:
    network = models.create("digits_cnn", num_classes=10, in_channels=1, width=16, seed=0).eval()
    return discover(network, X)


def test_energy_is_a_table_of_two_costs_with_an_exact_formula(groups: Groups) -> None:
    budget = Energy("60%", pj_per_mac=2.0, pj_per_byte=50.0, weight_bytes=1)
    resolved = budget.resolve(groups.model, X, groups)
    small = build(groups, Plan.uniform(groups, 0.5))
    expected = 1e-6 * (2.0 * count_macs(small, X) + 50.0 * count_params(small))
    assert resolved.value(small, X) == pytest.approx(expected)
    widths = list(Plan.uniform(groups, 0.5).widths.values())
    assert resolved.estimate is not None
    assert resolved.estimate(widths) == pytest.approx(expected)
    assert resolved.limit == pytest.approx(0.6 * resolved.dense)
    (named,) = parse({"energy": "2 mJ"})
    assert named.limit.value == 2000.0
    with pytest.raises(BudgetError, match="costs must be 0 or more"):
        Energy(0.5, pj_per_mac=-1)


def test_onnx_runtime_times_a_candidate_beside_the_dense_network() -> None:
    wide = nn.Sequential(nn.Conv2d(1, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 64, 3))
    narrow = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 64, 3))
    budget = OnnxLatency(0.7, batch_size=8, threads=1, repeats=5)
    resolved = budget.resolve(wide.eval(), X)
    assert resolved.measured
    assert 0 < resolved.value(narrow, X) < 0.7 * resolved.dense


SIZE = "import sys, os; print('bytes:', os.path.getsize(sys.argv[1]))"


def test_a_command_measures_the_networks_file(groups: Groups, tmp_path: Path) -> None:
    script = tmp_path / "measure it.py"
    script.write_text(SIZE)
    budget = Device(f"{sys.executable} '{script}' {{onnx}}", limit="80%", measured=False)
    small = build(groups, Plan.uniform(groups, 0.5))
    assert budget.value_of(small, X) > 4 * count_params(small)
    kept = tmp_path / "model.onnx"
    script.write_text(f"import shutil, sys; shutil.copy(sys.argv[1], {str(kept)!r}); print(1)")
    assert budget.value_of(small, X) == 1.0
    session = onnxruntime.InferenceSession(str(kept), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    assert torch.allclose(torch.from_numpy(found), small(X), atol=1e-5)


def test_a_command_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlprune.budgets.elsewhere.write_onnx", lambda *_: None)  # others write it
    network, script = nn.Linear(2, 2), tmp_path / "measure.py"
    board = Device(f"{sys.executable} {script} {{onnx}}", name="board")
    for program, message in (
        ("import sys; sys.exit('no such thing')", "ends with 1: no such thing"),
        ("print('ready')", "prints no number: 'ready'"),
    ):
        script.write_text(program)
        with pytest.raises(BudgetError, match=rf"'board': .*{message}"):
            board.resolve(network, X)
    with pytest.raises(BudgetError, match=r"has no \{onnx\}"):
        Device("measure")
    with pytest.raises(BudgetError, match="no_such_program"):
        Device("no_such_program {onnx}").resolve(network, X)
