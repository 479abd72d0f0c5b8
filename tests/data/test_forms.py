"""Mappings, several inputs, padded batches, and tasks that data are read for."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import datasets
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from rlprune import tasks
from rlprune.batches import as_batches
from rlprune.data import Data
from rlprune.errors import ConfigError, DataError

SIZE = 90
LENGTHS = [3 + at % 5 for at in range(SIZE)]
LABELS = torch.arange(SIZE) % 3


def ids(at: int) -> list[int]:
    """A text whose first token is its number."""
    return [at + 10, *range(1, LENGTHS[at])]


class Texts(Dataset):
    """As a tokenizer's data set yields samples: lists of different lengths, and the text."""

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, at: int) -> dict[str, Any]:
        mask = [1] * LENGTHS[at]
        return {
            "sentence": f"number {at}",
            "input_ids": ids(at),
            "attention_mask": mask,
            "label": at % 3,
        }


def padded() -> dict[str, Tensor]:
    longest = max(LENGTHS)
    rows = [ids(at) + [0] * (longest - LENGTHS[at]) for at in range(SIZE)]
    masks = [[1] * n + [0] * (longest - n) for n in LENGTHS]
    return {
        "input_ids": torch.tensor(rows),
        "attention_mask": torch.tensor(masks),
        "labels": LABELS,
    }


def hugging_face() -> datasets.Dataset:
    rows = [Texts()[at] for at in range(SIZE)]
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    names = datasets.ClassLabel(names=["a", "b", "c"])
    return datasets.Dataset.from_dict(columns).cast_column("label", names)


def encoding() -> UserDict:
    return UserDict(padded())


def loader() -> DataLoader:
    def pad(samples: list[dict[str, Any]]) -> UserDict:
        longest = max(len(sample["input_ids"]) for sample in samples)
        whole = [s["input_ids"] + [0] * (longest - len(s["input_ids"])) for s in samples]
        masks = [s["attention_mask"] + [0] * (longest - len(s["input_ids"])) for s in samples]
        return UserDict(
            input_ids=torch.tensor(whole),
            attention_mask=torch.tensor(masks),
            labels=torch.tensor([s["label"] for s in samples]),
        )

    return DataLoader(Texts(), batch_size=16, collate_fn=pad)


FORMS = [padded, encoding, Texts, hugging_face, loader, lambda: list(loader()).__iter__()]


@pytest.mark.parametrize("form", FORMS, ids="dict encoding texts datasets loader iterator".split())
def test_every_form_of_text_keeps_splits_labels_and_masks(form: Any) -> None:
    data = Data(form(), holdout=30, num_classes=3)
    assert (data.task.name, data.train_size, data.holdout_size) == ("text_classification", 60, 30)
    inputs, labels = data.holdout
    held = (inputs["input_ids"][:, 0] - 10).tolist()
    assert set(inputs) == {"input_ids", "attention_mask"}
    assert inputs["attention_mask"].sum(1).tolist() == [LENGTHS[at] for at in held]
    assert labels.tolist() == [at % 3 for at in held]
    trained: list[int] = []
    for batch, y in data.train_batches(1, 20):
        numbers = (batch["input_ids"][:, 0] - 10).tolist()
        assert y.tolist() == [at % 3 for at in numbers]
        assert bool(batch["attention_mask"].any(0).all()), "no column is padding for all"
        trained += numbers
    assert sorted(trained + held) == list(range(SIZE))
    calibration = (data.calibration(40)[0]["input_ids"][:, 0] - 10).tolist()
    assert len(set(calibration)) == 40
    assert not set(calibration) & set(held)


def test_class_names_come_with_hugging_face_data() -> None:
    data = Data(hugging_face())
    assert data.class_names == ("a", "b", "c")
    assert data.num_classes == 3


def test_held_out_texts_are_balanced_where_the_labels_are_known() -> None:
    assert Data(hugging_face(), holdout=30).holdout[1].bincount().tolist() == [10, 10, 10]


def test_several_inputs() -> None:
    left, right = torch.rand(SIZE, 4), torch.rand(SIZE, 2)
    pairs = ((left, right), LABELS)
    forms = [pairs, (left, right, LABELS), TensorDataset(left, right, LABELS)]
    forms.append(DataLoader(TensorDataset(left, right, LABELS), batch_size=7))
    for form in forms:
        data = Data(form, holdout=30)
        (x, z), y = data.holdout
        where = [int((left == row).all(1).nonzero()) for row in x]
        assert torch.equal(right[where], z)
        assert torch.equal(LABELS[where], y)
        assert data.task.name == "classification"


def test_calibration_batches_are_cut_along_every_input_and_lose_their_padding() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]])
    inputs = {"input_ids": torch.arange(12).view(3, 4), "attention_mask": mask}
    (first, labels), (second, _) = as_batches((inputs, torch.tensor([0, 1, 2])), 2)
    assert first["input_ids"].tolist() == [[0, 1], [4, 5]]
    assert labels.tolist() == [0, 1]
    assert second["input_ids"].shape == (1, 3)


def test_language_models_need_no_labels() -> None:
    tokens = torch.randint(0, 50, (40, 8))
    data = Data(tokens, task="language_modeling", num_classes=50, holdout=8)
    x, y = data.holdout
    assert torch.equal(x, y)
    with pytest.raises(DataError, match=r"sample .* has label 49"):
        Data(tokens.clamp_min(49), task="language_modeling", num_classes=49)


def test_the_same_samples_for_another_task() -> None:
    data = Data((torch.rand(SIZE, 4), LABELS), holdout=30)
    other = data.for_task("regression")
    assert (other.task.name, other.num_classes) == ("regression", 1)
    assert torch.equal(other.holdout[0], data.holdout[0])
    assert data.task.name == "classification"
    assert data.for_task("auto") is data.for_task("classification") is data
    with pytest.raises(DataError, match="needs a map of class numbers"):
        data.for_task("segmentation")


def test_label_maps_are_cropped_with_their_images() -> None:
    maps = torch.randint(0, 4, (40, 16, 16))
    data = Data((maps[:, None].float(), maps), augmentation="crop_flip")
    assert (data.task.name, data.num_classes) == ("segmentation", 4)
    for images, labels in data.train_batches(1, 12):
        assert torch.equal(images[:, 0].long(), labels)


def test_regression_is_balanced_over_its_range() -> None:
    y = torch.arange(100.0).flip(0)
    data = Data((torch.rand(100, 2), y), holdout=20)
    assert isinstance(data.task, tasks.Regression)
    assert sorted((data.holdout[1] // 10).int().tolist()) == [k for k in range(10) for _ in "ab"]


class Unmasked(Texts):
    def __getitem__(self, at: int) -> dict[str, Any]:
        return {"input_ids": ids(at), "label": at % 3}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"train": Unmasked(), "num_classes": 3, "holdout": 20}, DataError, "attention_mask"),
        ({"train": Texts()}, DataError, "give num_classes"),
        ({"train": (torch.rand(9, 2), torch.full((9,), float("nan")))}, DataError, "sample 0"),
        ({"train": torch.rand(9, 2)}, DataError, "y is missing"),
        ({"train": (torch.rand(9, 2), torch.zeros(9)), "task": "ranking"}, ConfigError, "unknown"),
        ({"train": {**padded(), "input_ids": torch.ones(4, 3)}}, DataError, "one number for all"),
        ({"train": (*padded().values(),), "mean": (0.5,)}, DataError, "one input tensor"),
    ],
)
def test_wrong_data_is_named(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        list(Data(**options).train_batches(0, 16))
