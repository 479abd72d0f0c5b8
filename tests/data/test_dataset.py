import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from rlprune import data as data_module
from rlprune.data import Data
from rlprune.errors import ConfigError, DataError

LABELS = torch.arange(200) % 4
IMAGES = torch.arange(200).view(200, 1, 1, 1).expand(200, 1, 8, 8).float().contiguous()


def numbers(x):
    return set(x[:, 0, 0, 0].long().tolist())


class Noisy(Dataset):
    """Samples with a random transform, as torchvision data sets have them."""

    targets = LABELS.tolist()
    classes = ("a", "b", "c", "d")

    def __len__(self):
        return 200

    def __getitem__(self, index):
        return IMAGES[index] + torch.rand(1), int(LABELS[index])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(IMAGES, LABELS, strict=True))


def test_held_out_and_training_samples_never_mix():
    data = Data((IMAGES, LABELS), holdout=0.2)
    held = numbers(data.holdout[0])
    trained = numbers(torch.cat([x for x, _ in data.train_batches(0, 16)]))
    assert len(held) == data.holdout_size == 40
    assert not held & trained
    assert not held & numbers(data.calibration(150)[0])
    assert trained <= set(range(200)) - held


def test_draws_are_balanced_in_every_prefix_and_follow_the_seed():
    data = Data((IMAGES, LABELS), holdout=0.2, seed=1)
    for prefix in (8, 20, 40):
        assert data.holdout[1][:prefix].bincount().tolist() == [prefix // 4] * 4
    assert data.calibration(60)[1].bincount().tolist() == [15] * 4
    same, other = (Data((IMAGES, LABELS), holdout=0.2, seed=s).holdout[0] for s in (1, 2))
    assert torch.equal(data.holdout[0], same)
    assert not torch.equal(same, other)


def test_epochs_differ_and_repeat_under_their_seed():
    data = Data((IMAGES, LABELS), augmentation="crop")

    def epoch(number, seed=0):
        return torch.cat([x for x, _ in data.train_batches(number, 32, seed=seed)])

    assert torch.equal(epoch(1), epoch(1))
    assert not torch.equal(epoch(1), epoch(2))
    assert not torch.equal(epoch(1), epoch(1, seed=5))


@pytest.mark.parametrize(
    "source",
    [
        (IMAGES, LABELS),
        (IMAGES.numpy(), LABELS.numpy()),
        TensorDataset(IMAGES, LABELS),
        Subset(TensorDataset(IMAGES, LABELS), range(200)),
        Noisy(),
        DataLoader(Noisy(), batch_size=32, shuffle=True),
        DataLoader(Stream(), batch_size=32),
        Stream(),
        lambda: (IMAGES, LABELS),
    ],
    ids=[
        "pair",
        "numpy",
        "tensors",
        "subset",
        "dataset",
        "loader",
        "stream",
        "iterable",
        "factory",
    ],
)
def test_every_form_of_training_data(source):
    data = Data(source, holdout=20)
    assert (data.num_classes, data.train_size, data.holdout_size) == (4, 180, 20)
    assert data.example_inputs.shape == (1, 1, 8, 8)
    x, y = data.holdout
    assert torch.equal(x[:, 0, 0, 0].long() % 4, y)
    assert y.bincount().tolist() == [5] * 4
    assert sum(len(x) for x, _ in data.train_batches(0, 60)) == 180


def test_random_transforms_do_not_depend_on_the_number_of_workers():
    runs = []
    for workers in (0, 2):
        data = Data(Noisy(), workers=workers)
        runs.append(torch.cat([x for x, _ in data.train_batches(3, 50)]))
    assert torch.equal(*runs)


def test_the_test_split_is_opened_only_when_asked_for():
    opened = []

    def test():
        opened.append(True)
        return IMAGES, LABELS

    data = Data((IMAGES, LABELS), test=test)
    _ = (
        data.holdout,
        data.calibration(),
        data.example_inputs,
        list(data.train_batches(0)),
        repr(data),
    )
    assert data.has_test
    assert not opened
    assert sum(len(x) for x, _ in data.test_batches(64)) == 200
    list(data.test_batches())
    assert opened == [True]


def test_bytes_are_scaled_and_normalised():
    x = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    data = Data(
        (x, torch.arange(50) % 2), holdout=10, mean=mean, std=std, test=(x, x[:, 0, 0, 0] % 2)
    )
    (got, _), *_ = data.test_batches(50)
    expected = (x / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(got, expected)


def test_own_calibration_and_holdout():
    data = Data(
        (IMAGES, LABELS), calibration=(IMAGES + 500, LABELS), holdout=(IMAGES + 900, LABELS)
    )
    assert data.train_size == 200
    assert min(numbers(data.calibration(10)[0])) == 500
    assert min(numbers(data.holdout[0])) == 900


def test_tokens_pass_unchanged():
    tokens = torch.randint(0, 100, (60, 7))
    data = Data((tokens, torch.arange(60) % 2))
    assert data.example_inputs.dtype == torch.int64
    assert data.holdout[0].shape == (6, 7)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"train": (IMAGES, LABELS[:9])}, DataError, "200 samples but y"),
        ({"train": (IMAGES[:0], LABELS[:0])}, DataError, "at least one sample"),
        (
            {"train": (IMAGES, LABELS.float()), "task": "classification"},
            DataError,
            "integer class numbers",
        ),
        ({"train": (IMAGES, LABELS - 1)}, DataError, "label -1"),
        ({"train": (IMAGES, LABELS), "num_classes": 3}, DataError, "sample 3 has label 3"),
        ({"train": (IMAGES / 0, LABELS)}, DataError, "NaN"),
        ({"train": 7}, DataError, "got int"),
        ({"train": (IMAGES, LABELS), "holdout": 1.5}, ConfigError, "holdout=1.5"),
        ({"train": (IMAGES, LABELS), "holdout": 200}, ConfigError, "holdout=200"),
        ({"train": (IMAGES, LABELS), "augmentation": "flip"}, ConfigError, "crop_flip"),
        ({"train": (IMAGES, LABELS), "augmentation": "imagenet"}, ConfigError, "streamed"),
        ({"train": (IMAGES[:, 0, 0], LABELS), "augmentation": "crop"}, ConfigError, "needs images"),
        ({"train": (IMAGES, LABELS), "mean": (0.1, 0.2)}, DataError, "mean has 2 values"),
        ({"train": (IMAGES, LABELS), "std": (0.0,)}, DataError, "positive"),
    ],
)
def test_wrong_data_is_named(options, error, message):
    with pytest.raises(error, match=message):
        Data(**options)


def test_a_test_split_of_another_shape_is_named():
    data = Data((IMAGES, LABELS), test=(IMAGES[:, :, :4], LABELS))
    with pytest.raises(DataError, match=r"test samples have shape \(1, 4, 8\)"):
        list(data.test_batches())
    with pytest.raises(DataError, match="no test split"):
        list(Data((IMAGES, LABELS)).test_batches())


def test_digits():
    data = data_module.load("digits")
    assert (data.num_classes, data.example_inputs.shape) == (10, (1, 1, 8, 8))
    again = data_module.load("digits", seed=3)
    first, second = (torch.cat([x for x, _ in d.test_batches()]) for d in (data, again))
    assert torch.equal(first, second)
    assert len(first) + data.train_size + data.holdout_size == 1797
    with pytest.raises(ConfigError, match="mirror"):
        data_module.load("digits", augmentation="crop_flip")


def user_data(size: int) -> Data:
    return Data((IMAGES[:size], LABELS[:size]))


def test_load_by_name_and_path(tmp_path):
    assert data_module.load(f"{__name__}.user_data", size=100).train_size == 90
    with pytest.raises(ConfigError, match="did you mean cifar10"):
        data_module.load("cifar")
    with pytest.raises(ConfigError, match="colour"):
        data_module.load("digits", colour=True)
    with pytest.raises(DataError, match=r"cifar-10-python.tar.gz"):
        data_module.load("cifar10", root=tmp_path, download=False)
