"""ONNX of a decoder of uneven widths: no cache in its outputs, the same answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlprune.compaction import build, discover
from rlprune.export import export
from rlprune.plan import Plan
from rlprune.zoo import transformers_tiny

pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")


def test_an_uneven_decoder_runs_in_onnx_runtime(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, inputs = transformers_tiny.build("llama", None)
    groups = discover(model.eval(), inputs)
    widths = [g.width * (2 + at % 2) // 4 for at, g in enumerate(groups.prunable)]
    small = build(groups, Plan.from_widths(groups, widths)).eval()
    written = export(small, inputs, tmp_path, "onnx")
    assert written.get("error") is None
    assert written["max_difference"] <= 1e-4
    assert small.config.use_cache  # type: ignore[union-attr]
