"""What is stored is what is loaded, in the bytes that the budget says."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import rlprune
from rlprune.budgets import count_nonzeros, stored_bytes
from rlprune.errors import CheckpointError
from rlprune.sparse import hold, read_sparse, release, zeros


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, 200), nn.BatchNorm1d(200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(),
        nn.Linear(200, 10),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.99])
def test_every_bit_comes_back(tmp_path: Path, sparsity: float, dtype: torch.dtype) -> None:
    model = rlprune.sparsify(network().to(dtype), torch.zeros(1, 64, dtype=dtype), sparsity)
    with torch.no_grad():
        model[0].weight[0, 0] = -0.0
        model[0].weight[0, 1] = float("nan")
    path = tmp_path / "model.safetensors"
    rlprune.save_sparse(model, path)
    empty = network().to(dtype)
    loaded = rlprune.load_sparse(empty, path)
    for name, tensor in model.state_dict().items():
        same = torch.equal(loaded.state_dict()[name].nan_to_num(7), tensor.nan_to_num(7))
        assert same, name
    assert not torch.equal(empty[3].weight, loaded[3].weight) or sparsity == 0
    header = 4096
    assert abs(path.stat().st_size - stored_bytes(model)) < header
    if sparsity:
        assert path.stat().st_size < (1.1 - sparsity) * _dense_bytes(model) + header


def _dense_bytes(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())


def test_shared_tensors_are_stored_once_and_stay_shared(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    model[1].weight = model[0].weight
    rlprune.save_sparse(model, tmp_path / "shared")
    assert (tmp_path / "shared").stat().st_size < 1.3 * 4 * 64 * 64
    loaded = rlprune.load_sparse(model, tmp_path / "shared")
    assert loaded[1].weight is loaded[0].weight


def test_held_zeros_survive_training_and_are_stored(tmp_path: Path) -> None:
    model = rlprune.sparsify(network(), torch.zeros(1, 64), 0.8)
    before = {n: p == 0 for n, p in model.named_parameters() if p.ndim == 2}
    hold(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    x, y = torch.randn(32, 64), torch.randint(0, 10, (32,))
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    path = tmp_path / "trained"
    rlprune.save_sparse(model, path)
    stored = read_sparse(path)
    model.eval()
    held = model(x)
    ordinary = release(copy.deepcopy(model))
    assert torch.equal(model(x), held)
    assert torch.equal(release(model)(x), held)
    assert set(ordinary.state_dict()) == set(network().state_dict())
    assert torch.allclose(ordinary(x), held)
    for name, gone in before.items():
        assert torch.equal(ordinary.get_parameter(name) == 0, gone)
        assert torch.equal(stored[name], ordinary.get_parameter(name))


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    rlprune.save_sparse(network(), path)
    with pytest.raises(CheckpointError, match=r"the network has no tensor '3\.weight'"):
        rlprune.load_sparse(nn.Sequential(nn.Linear(64, 200), nn.BatchNorm1d(200)), path)
    other = network()
    other[0] = nn.Linear(63, 200)
    with pytest.raises(CheckpointError, match=r"'0\.weight' has shape"):
        rlprune.load_sparse(other, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_sparse(path)
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="not written by rlprune"):
        read_sparse(path)


def test_counts() -> None:
    model = rlprune.sparsify(network(), torch.zeros(1, 64), 0.9)
    zero, total = zeros(model)
    assert count_nonzeros(model) == total - zero
    assert stored_bytes(model) < stored_bytes(network())
