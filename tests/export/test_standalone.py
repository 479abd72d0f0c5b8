"""A network as a Python file: the same outputs, from plain PyTorch code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlprune import models
from rlprune.export import export
from rlprune.export.standalone import load_standalone


class Several(nn.Module):
    """Two inputs, a dictionary of outputs, a shared weight and a buffer that is not stored."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.tensor([2.0]), persistent=False)

    def forward(self, x: Tensor, *, shift: Tensor) -> dict[str, Any]:
        hidden = self.second(self.first(x).relu()) * self.scale
        return {"sum": hidden + shift, "parts": (hidden, shift.mean(1))}


CASES: dict[str, tuple[Any, Any]] = {
    "images": (lambda: models.create("resnet20", num_classes=10, seed=0), torch.rand(1, 3, 16, 16)),
    "tokens": (
        lambda: models.create("text_transformer", num_classes=3, vocab_size=20, width=16, seed=0),
        torch.randint(1, 20, (2, 7)),
    ),
    "several": (Several, {"x": torch.rand(2, 6), "shift": torch.rand(2, 6)}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_network_as_a_file(name: str, tmp_path: Path) -> None:
    build, inputs = CASES[name]
    found = export(build(), inputs, tmp_path, "standalone")
    assert found["max_difference"] < 1e-5, found
    assert {path.name for path in tmp_path.iterdir()} == set(found["files"])
    text = (tmp_path / "standalone.py").read_text()
    assert "rlprune" not in text
    assert "import torch" in text
    network = load_standalone(tmp_path / "standalone.py")
    assert not network.training
    assert sum(p.numel() for p in network.parameters()) > 0


def test_what_no_file_can_say_is_told(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if bool((x > 0).all()) else -x

    assert "error" in export(Branching(), torch.rand(2, 3), tmp_path, "standalone")
    assert not list(tmp_path.glob("standalone.py"))
