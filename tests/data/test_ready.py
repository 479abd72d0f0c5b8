"""Texts, tables and label maps from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_diabetes

from rlprune.data import Data, load
from rlprune.errors import ConfigError, DataError

LINES = [f"{kind} {word} again {word}" for word in "one two three four".split() for kind in "ab"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "train.txt"
    path.write_bytes("\n".join(LINES * 5).encode() + "\nb caf\xe9\n".encode("latin-1"))
    return path


def test_words_are_numbered_by_the_training_split_alone(texts: Path, tmp_path: Path) -> None:
    other = tmp_path / "test.txt"
    other.write_text("b again never one\n")
    data = load("text", train=texts, test=other, max_length=3)
    assert data.class_names == ("a", "b")
    assert data.facts == {"vocab_size": 2 + 6, "max_length": 3}
    ((inputs, labels),) = data.test_batches()
    assert labels.tolist() == [1]
    known = inputs["input_ids"][0].tolist()
    assert known[0] == 2, "the most frequent word comes first"
    assert known[1] == 1, "a word the training split does not hold"
    other.write_text("c again\n")
    with pytest.raises(DataError, match="label 'c' does not occur"):
        load("text", train=texts, test=other)
    other.write_text("a again\nb\n")
    with pytest.raises(DataError, match="line 2: expected 'label sentence'"):
        load("text", train=other)


def test_a_text_s_end_is_its_test_split(tmp_path: Path) -> None:
    content = bytes(at % 251 for at in range(4000))
    (tmp_path / "text").write_bytes(content)
    data = load("text_file", train=tmp_path, length=10, test_share=0.25, holdout=0.1)
    test = torch.cat([tokens for tokens, _ in data.test_batches()])
    assert bytes(test.flatten().tolist()) == content[3000:]
    seen = torch.cat([data.holdout[0], *(x for x, _ in data.train_batches(1, 1))])
    assert sorted(map(tuple, seen.tolist())) == sorted(
        tuple(content[at : at + 10]) for at in range(0, 3000, 10)
    )
    assert data.num_classes == 256
    with pytest.raises(DataError, match="less than a block of 5000"):
        load("text_file", train=tmp_path, length=5000)
    with pytest.raises(DataError, match="neither a text file nor a folder with files"):
        load("text_file", train=tmp_path, pattern="*.go")


def test_a_table_from_a_file_is_that_of_scikit_learn(tmp_path: Path) -> None:
    bunch = load_diabetes()
    rows = [",".join([*bunch.feature_names, "progress"])]
    rows += [
        ",".join(map(repr, map(float, (*x, y))))
        for x, y in zip(bunch.data, bunch.target, strict=True)
    ]
    (tmp_path / "diabetes.csv").write_text("\n".join(rows))
    ours, theirs = (
        load("tabular", **options)
        for options in ({"path": tmp_path / "diabetes.csv"}, {"bundled": "diabetes"})
    )
    for part in (0, 1):
        torch.testing.assert_close(ours.holdout[part], theirs.holdout[part])
    assert ours.task.scale == pytest.approx(theirs.task.scale)  # type: ignore[attr-defined]


def test_words_in_a_table(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    colours = ("red", "green", "blue")
    rows = [f"{at},{colours[at % 3]},{'yes' if at % 2 else 'no'}" for at in range(60)]
    path.write_text("\n".join(["n,colour,answer", *rows]))
    data = load("tabular", path=path)
    assert (data.task.name, data.class_names, data.facts) == (
        "classification", ("no", "yes"), {"in_features": 4},
    )  # fmt: skip
    number = load("tabular", path=path, target="n")
    assert (number.task.name, number.facts) == ("regression", {"in_features": 5})
    path.write_text("a,b\n1,2\n1\n3,4\n")
    with pytest.raises(DataError, match="row 3: expected 2 cells"):
        load("tabular", path=path)
    path.write_text("a,b\n1,2\n1,nan\n3,4\n")
    with pytest.raises(DataError, match="column 'b', row 3: 'nan' is no finite number"):
        load("tabular", path=path)
    with pytest.raises(ConfigError, match="exactly one of"):
        load("tabular")


def draw(root: Path, size: int = 12) -> None:
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for part in ("images", "masks"):
            (root / split / part).mkdir(parents=True)
        for at in range(20):
            mask = generator.integers(0, 3, (size, size), dtype=np.uint8)
            mask[0, 0] = 255
            image = np.stack([100 * (mask % 3)] * 3, axis=-1).astype(np.uint8)
            Image.fromarray(image).save(root / split / "images" / f"{at}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{at}.png")


def test_label_maps_beside_their_images(tmp_path: Path) -> None:
    draw(tmp_path)

    def opened(**options: Any) -> Data:
        return load("segmentation", root=tmp_path, mean=None, std=None, **options)

    data = opened()
    assert (data.task.name, data.num_classes, data.train_size) == ("segmentation", 3, 18)
    for images, maps in data.train_batches(1, 6):
        classes = (images[:, 0] * 255 / 100).round().long()
        assert torch.equal(classes[maps != 255], maps[maps != 255])
    assert opened(size=8).example_inputs.shape == (1, 3, 8, 8)
    (tmp_path / "train" / "masks" / "7.png").unlink()
    with pytest.raises(DataError, match=r"7\.png has no mask"):
        opened()
    Image.new("RGB", (12, 12)).save(tmp_path / "train" / "masks" / "7.png")
    with pytest.raises(DataError, match="is a RGB image"):
        opened()
