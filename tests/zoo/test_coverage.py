"""The coverage table: a handful of public networks by default, all of them under ``-m long``."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from rlprune.errors import ConfigError
from rlprune.zoo import cover, coverage, names
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

    row = cover("broken", nn.Sequential(nn.Linear(4, 3), nn.Linear(5, 2)).double(), zeros(1, 4))
    assert "failed" in row.failure
    assert not passed(row)


def test_parts_and_rows_kept_from_an_earlier_run(tmp_path: Path) -> None:
    wanted = ["squeezenet1_1", "squeezenet1_0"]
    for part in ("1/2", "2/2"):
        out = tmp_path / part[0]
        assert main([*wanted, "--part", part, "--out", str(out)]) == 0
        assert len(json.loads((out / "coverage.json").read_text())["rows"]) == 1
    rows = json.loads((tmp_path / "1" / "coverage.json").read_text())
    rows["rows"][0]["groups"] = 1000
    (tmp_path / "1" / "coverage.json").write_text(json.dumps(rows))
    assert main([*wanted, "--resume", "--out", str(tmp_path / "1")]) == 0
    rows = json.loads((tmp_path / "1" / "coverage.json").read_text())["rows"]
    assert [r["name"] for r in rows] == wanted
    assert rows[0]["groups"] == 1000 > rows[1]["groups"]
    assert main([*wanted, "--part", "3/2"]) == 2


TABLE = Path(__file__).parents[2] / ".github" / "zoo.csv"
"""Made by ``rlprune zoo NAMES --resume --out FOLDER --short .github/zoo.csv``."""


def recorded(name: str) -> float:
    """Share of the parameters left that the table in the repository gives."""
    lines = [line for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    row = next(row for row in csv.DictReader(lines) if row["network"] == name)
    assert row["state"] == "ok"
    return float(row["left"])


class TestTimm:
    @pytest.mark.parametrize(
        ("name", "module", "family"),
        [
            ("tf_efficientnet_b0", "efficientnet", "efficientnet/efficientnet"),
            ("mobilenetv4_conv_small", "mobilenetv3", "mobilenetv3/mobilenetv4"),
            ("resnet18", "resnet", "resnet/resnet"),
            ("vit_tiny_patch16_224", "vision_transformer", "vision_transformer/vit"),
        ],
    )
    def test_families_by_file_and_name(self, name: str, module: str, family: str) -> None:
        from rlprune.zoo import timm_smallest

        assert timm_smallest.family(name, module) == family

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize(
        "name", ["pvt_v2_b0", "starnet_s050", "lcnet_035", "edgenext_xx_small"]
    )
    def test_members_are_what_the_table_says(self, name: str) -> None:
        pytest.importorskip("timm")
        (row,) = coverage([f"timm/{name}"])
        assert passed(row), row
        assert row.kept == pytest.approx(recorded(f"timm/{name}"), abs=0.01)
        assert row.held is not None
        assert sum(row.held.values()) <= 1


class TestTransformersOfAnyType:
    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("kind", ["dinov2", "gemma2", "mamba", "mbart", "segformer"])
    def test_toy_models_are_what_the_table_says(self, kind: str) -> None:
        pytest.importorskip("transformers")
        (row,) = coverage([f"hf/auto/{kind}"])
        assert row.built
        assert passed(row), row
        assert row.kept == pytest.approx(recorded(f"hf/auto/{kind}"), abs=0.01)

    def test_every_type_is_named_and_one_without_a_toy_size_is_said_to_be(self) -> None:
        pytest.importorskip("transformers")
        assert len(names("hf")) > 300
        (row,) = coverage(["hf/auto/align"])
        assert not row.built
        assert "stays large" in row.failure


def test_a_short_table(tmp_path: Path) -> None:
    assert main(["squeezenet1_1", "--short", str(tmp_path / "zoo.csv")]) == 0
    comment, head, row = (tmp_path / "zoo.csv").read_text().splitlines()
    assert comment.startswith("# 1 networks: masked == compacted")
    assert row.split(",")[: head.split(",").index("state") + 1] == ["squeezenet1_1", "ok"]
