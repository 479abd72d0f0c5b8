import shutil

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from rlprune import data as data_module
from rlprune.data import folder as folder_module
from rlprune.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    base = tmp_path / "images"
    for split, count in (("train", 12), ("test", 4)):
        for name in ("cat", "dog"):
            (base / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (10, 10, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(base / split / name / f"{i:02}.png")
    return base


def load(root, **options):
    options.setdefault("cache", root.parent / "cache")
    return data_module.load("imagefolder", root=root, **options)


def test_images_come_out_as_stored(root):
    data = load(root, mean=None, std=None, holdout=4)
    assert (data.num_classes, data.class_names) == (2, ("cat", "dog"))
    assert (data.train_size, data.holdout_size) == (20, 4)
    (x, y), *_ = data.test_batches()
    stored = torch.from_numpy(np.array(Image.open(root / "test" / "cat" / "01.png")))
    assert torch.equal((x[1] * 255).round().byte(), stored.permute(2, 0, 1))
    assert y.tolist() == [0] * 4 + [1] * 4


def test_second_use_reads_the_cache_until_a_file_changes(root, monkeypatch):
    first = load(root).holdout[0]

    def refuse(*_):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "_decode_all", refuse)
        assert torch.equal(load(root).holdout[0], first)
    Image.new("RGB", (10, 10)).save(root / "train" / "cat" / "00.png")
    before = len(list((root.parent / "cache" / "decoded").iterdir()))
    load(root)
    assert len(list((root.parent / "cache" / "decoded").iterdir())) == before + 1


def test_a_damaged_cache_is_decoded_again(root, caplog):
    first = load(root).holdout[0]
    for file in (root.parent / "cache" / "decoded").iterdir():
        file.write_bytes(b"damaged")
    assert torch.equal(load(root).holdout[0], first)
    assert "decoding again" in caplog.text


def test_other_sizes_are_resized_and_cropped(root):
    Image.new("RGB", (30, 20)).save(root / "train" / "cat" / "00.png")
    assert load(root, size=8).example_inputs.shape == (1, 3, 8, 8)
    with pytest.raises(DataError, match=r"is 10x10, the first one 20x30; give size="):
        load(root)


def test_val_beside_test_is_the_held_out_split(root):
    shutil.copytree(root / "test", root / "val")
    data = load(root)
    assert (data.train_size, data.holdout_size) == (24, 8)
    shutil.rmtree(root / "test")
    assert load(root).holdout_size == 3


def test_large_images_are_streamed(root):
    data = load(root, size=16, augmentation="imagenet", workers=0)
    assert data.example_inputs.shape == (1, 3, 16, 16)
    first, again, other = (next(data.train_batches(e, 8))[0] for e in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(data.holdout[0], load(root, size=16, augmentation="imagenet").holdout[0])


def empty_class(root):
    (root / "train" / "bird").mkdir()


def other_class(root):
    (root / "test" / "dog").rename(root / "test" / "wolf")


def no_image(root):
    (root / "train" / "cat" / "00.png").write_text("not an image")


def no_test(root):
    shutil.rmtree(root / "test")


def no_train(root):
    shutil.rmtree(root / "train")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (empty_class, "bird holds no image"),
        (other_class, "only in train: dog; only in test: wolf"),
        (no_image, "00.png cannot be read"),
        (no_test, "neither test/ nor val/"),
        (no_train, "train does not exist"),
        (shutil.rmtree, "does not exist; set data.root"),
    ],
)
def test_damage_is_named(root, damage, message):
    damage(root)
    with pytest.raises(DataError, match=message):
        load(root)


def test_weights_bring_their_own_preprocessing(root):
    from rlprune.data.preprocessing import preprocessing_of

    own = preprocessing_of("torchvision/efficientnet_b1")
    assert (own.size, own.resize, own.interpolation) == (240, 255, "bilinear")
    assert preprocessing_of("torchvision/resnet50:IMAGENET1K_V1").resize == 256
    name = "torchvision/efficientnet_b1:IMAGENET1K_V1"
    data = load(root, workers=0, preprocessing=name, augmentation="imagenet")
    image = Image.open(root / "train" / "cat" / "00.png").convert("RGB")
    weights = torchvision.models.EfficientNet_B1_Weights.IMAGENET1K_V1
    wanted = weights.transforms(antialias=True)(image)[None]
    source = data._train.eval_set
    held = data._train.normalise(source[0][0][None])
    assert held.shape == wanted.shape == (1, 3, 240, 240)
    assert torch.allclose(held, wanted, atol=0.02)
    for wrong in ("resnet50", "torchvision/resnet51", "torchvision/resnet50:V7", "timm/resnet51"):
        with pytest.raises(ConfigError, match="preprocessing"):
            preprocessing_of(wrong)


def test_no_more_of_the_held_out_part_is_read_than_asked(root):
    data = load(root, holdout=6)
    first = data.held_out(4)
    assert "holdout" not in data.__dict__
    assert torch.equal(first[0], data.holdout[0][:4])
    assert torch.equal(data.held_out(2)[1], data.holdout[1][:2])
