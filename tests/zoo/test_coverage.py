"""The coverage table: a handful of public networks by default, all of them under ``-m long``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlprune.errors import ConfigError
from rlprune.zoo import coverage, measure, names
from rlprune.zoo.__main__ import main
from rlprune.zoo.table import TOLERANCE, passed

HANDFUL = (
    "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "regnet_x_400mf",
    "swin_v2_t", "segmentation/lraspp_mobilenet_v3_large",
    "backbone/fasterrcnn_mobilenet_v3_large_320_fpn", "hf/whisper",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", HANDFUL)
def test_masked_equals_compacted(name: str) -> None:
    (row,) = coverage([name])
    assert not row.failure
    assert row.error is not None
    assert row.error <= TOLERANCE
    assert row.prunable > 0
    assert row.kept is not None
    assert row.kept < 0.75


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", [n for n in names() if n not in HANDFUL])
def test_masked_equals_compacted_everywhere(name: str) -> None:
    (row,) = coverage([name])
    assert passed(row), row


def test_there_are_eighty_classifiers_and_globs_select() -> None:
    assert len(names("classification")) >= 80
    assert names("vgg1?", "resnet18") == ["vgg11", "vgg13", "vgg16", "vgg19", "resnet18"]
    with pytest.raises(ConfigError, match="nosuchnet"):
        names("nosuchnet")


def test_the_command_writes_both_forms(tmp_path: Path) -> None:
    assert main(["squeezenet1_1", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "coverage.json").read_text())["rows"]
    assert rows[0]["name"] == "squeezenet1_1"
    text = (tmp_path / "coverage.md").read_text()
    assert "1 networks: masked == compacted" in text
    assert "none fails" in text


def test_a_network_that_cannot_be_traced_is_a_row_with_the_reason() -> None:
    from torch import nn, zeros

    row = measure("broken", nn.Sequential(nn.Linear(4, 3), nn.Linear(5, 2)).double(), zeros(1, 4))
    assert "failed" in row.failure
    assert not passed(row)
