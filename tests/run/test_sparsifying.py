"""``rlprune sparsify``: zeros cost what they cost, trained and stored, beside a smaller network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rlprune
from rlprune import FineTune, models
from rlprune.errors import ConfigError
from rlprune.run import RunSpec
from rlprune.run.sparsifying import SparseSpec, Sparsifying
from rlprune.sparse import compressed, zeros


def spec(**options: Any) -> RunSpec:
    given = {"finetune": FineTune(epochs=3, lr=0.02), "latency": {"repeats": 2}, **options}
    return RunSpec.of(budgets={"macs": 0.5}, progress=False, **given)


def test_the_table_measures_what_is_there(
    dense: nn.Module, settings: dict[str, Any], tmp_path: Path
) -> None:
    schedule = {"name": "gradual", "rounds": 3}
    data = settings["data"]
    asked = SparseSpec(sparsity=0.8, patterns=("unstructured",), compact=(0.4,))
    run = Sparsifying(spec(schedule=schedule), asked, dense, data.example_inputs, data, tmp_path)
    table = run.run()
    whole, zeroed, stored, compacted = table["rows"]
    assert zeroed["bytes"] == whole["bytes"]
    assert zeroed["macs"] == whole["macs"]
    assert stored["bytes"] < 0.5 * whole["bytes"]
    assert compacted["macs"] < 0.8 * whole["macs"]
    assert compacted["params"] == compacted["nonzeros"]
    assert all(row["ms"] > 0 for row in table["rows"])
    loaded = rlprune.load_sparse(dense, tmp_path / "unstructured.safetensors")
    gone, total = zeros(loaded)
    assert 0.7 < gone / total < 0.8
    x = data.example_inputs
    assert torch.equal(loaded(x), run.sparse_network("unstructured")(x))
    assert "| unstructured, compressed |" in (tmp_path / "sparsity.md").read_text()


def test_compressed_rows_compute_the_same() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(8, 8, (3, 1), dilation=(2, 1), padding="same", padding_mode="reflect"),
            nn.Flatten(2), nn.Linear(64, 10, bias=False),
        ]  # fmt: skip
        model = nn.Sequential(*layers).double()
        x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
        sparse = rlprune.sparsify(model, x, 0.9, scope="layer")
        assert sum("Compressed" in type(m).__name__ for m in compressed(sparse)) == 3
        torch.testing.assert_close(compressed(sparse)(x), sparse(x), rtol=1e-12, atol=1e-12)
        line = rlprune.sparsify(models.create("mlp"), torch.rand(5, 64), 0.9)
        torch.testing.assert_close(compressed(line)(torch.ones(5, 64)), line(torch.ones(5, 64)))


def test_mistakes_are_named(dense: nn.Module, settings: dict[str, Any], tmp_path: Path) -> None:
    data = settings["data"]
    with pytest.raises(ConfigError, match="finetune= is none"):
        Sparsifying(
            spec(finetune=None, schedule="gradual"), SparseSpec(), dense, data.example_inputs,
            data, tmp_path,
        )  # fmt: skip
    for wrong, message in (
        ({"compact": (2.0,)}, "shares in"), ({"patterns": ("4:2",)}, "n < m"),
        ({"method": "wand"}, "choose of"), ({"patterns": ()}, "at least one"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            SparseSpec(**wrong)
