"""Captures: on disk lies exactly what the network computed at positions that count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlprune.errors import DataError
from rlprune.observe import Site, capture, open_captures, stream
from rlprune.observe.recorder import Observation
from rlprune.observe.rows import places, rows
from rlprune.zoo.transformers_tiny import build

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def bert() -> tuple[nn.Module, list[tuple[Any, None]]]:
    torch.manual_seed(0)
    network, inputs = build("bert")
    other = {**inputs, "attention_mask": inputs["attention_mask"].flip(0)}
    return network.eval(), [(inputs, None), (other, None)]


def test_tokens_without_padding_come_back_in_another_process_s_view(
    bert: tuple[nn.Module, list[tuple[Any, None]]], tmp_path: Path
) -> None:
    network, batches = bert
    values: list[Tensor] = []
    stream(network, batches, {"*.1.output.dense": lambda seen: values.append(seen.value.clone())})
    capture(network, batches, ["*.1.output.dense", "*pooler*dense"], tmp_path)
    found = open_captures(tmp_path)
    name = "bert.encoder.layer.1.output.dense@output"
    assert set(found) == {name, "bert.pooler.dense@output"}
    one = found[name]
    assert one.values.shape == (34, 64), "twenty positions less three of padding, twice"
    whole = torch.cat(values)
    assert torch.equal(one.values, whole[one.sample.long(), one.position.long()])
    assert one.sample.unique().tolist() == [0, 1, 2, 3]
    padded = [(1, p) for p in (7, 8, 9)] + [(2, p) for p in (7, 8, 9)]
    assert not {*padded} & {*zip(one.sample.tolist(), one.position.tolist(), strict=True)}
    assert found["bert.pooler.dense@output"].sample.tolist() == [0, 1, 2, 3]


def test_types_calls_and_images(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shared = nn.Conv2d(3, 3, 3, padding=1)
    network = nn.Sequential(shared, nn.ReLU(inplace=True), shared)
    x = torch.randn(2, 3, 4, 5)
    found = capture(network, [(x, None)], ["0"], tmp_path, dtype=torch.bfloat16)["0@output"]
    assert found.values.shape == (2 * 2 * 20, 3)
    assert found.call.tolist() == [0] * 40 + [1] * 40
    with torch.no_grad():
        first = shared(x)
        second = shared(first.relu())
    wanted = torch.cat([y.permute(0, 2, 3, 1).reshape(-1, 3) for y in (first, second)])
    assert torch.equal(found.values, wanted.bfloat16())
    assert found.position[:40].tolist() == [*range(20), *range(20)]


def test_masks_of_flattened_rows_and_masks_that_do_not_fit() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])

    def seen(*shape: int) -> Observation:
        values = torch.arange(1.0 * torch.Size(shape).numel()).reshape(shape)
        return Observation(Site("a"), values, start=5, mask=mask)

    for shape in ((2, 3, 4), (6, 4)):
        assert rows(seen(*shape))[:, 0].tolist() == [0.0, 4.0, 12.0]
        assert places(seen(*shape)).tolist() == [[5, 0], [5, 1], [6, 0]]
    assert rows(seen(2, 4)).shape == (2, 4)
    assert rows(seen(2, 3, 7, 4)).shape == (21, 4)
    with pytest.raises(
        DataError, match=r"\(2, 3\) does not fit the value \(2, 9, 4\) at 'a@output'"
    ):
        rows(seen(2, 9, 4))


def test_unfinished_folders_and_sites_never_reached_are_refused(
    bert: tuple[nn.Module, list[tuple[Any, None]]], tmp_path: Path
) -> None:
    network, batches = bert
    with pytest.raises(DataError, match=r"nothing was seen at 'bert.encoder.layer@output'"):
        capture(network, batches, ["bert.encoder.layer"], tmp_path)
    with pytest.raises(DataError, match=r"there is no captures.json"):
        open_captures(tmp_path)
    capture(network, batches, ["classifier"], tmp_path)
    with (tmp_path / "0000.values").open("ab") as handle:
        handle.write(b"more")
    with pytest.raises(DataError, match=r"0000.values is missing or not 32 bytes long"):
        open_captures(tmp_path)
