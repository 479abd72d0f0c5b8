"""Integers that repeat a width, and integers that only happen to have its value."""

from __future__ import annotations

import pytest
import torch

from rlprune.compaction import build, discover, verify
from tests.structure.laws import half

transformers = pytest.importorskip("transformers")


def test_a_number_of_positions_is_not_a_width() -> None:
    config = transformers.DebertaV2Config(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=32, relative_attention=True,
        pos_att_type=["p2c", "c2p"], position_buckets=-1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.DebertaV2ForSequenceClassification(config).eval()
    inputs = {"input_ids": torch.randint(1, 50, (2, 9))}
    groups = discover(model, inputs)
    plan = half(groups)
    small = build(groups, plan)
    for part in small.modules():
        if hasattr(part, "pos_ebd_size"):
            assert part.pos_ebd_size == 32
    verify(groups, small, plan)
