import pytest
import torch
from torch.nn import functional

from rlprune.data.augment import augment, padding_for


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def windows(image, pad):
    padded = functional.pad(image[None].float(), (pad,) * 4, mode="reflect")[0]
    height, width = image.shape[1:]
    return [
        padded[:, y : y + height, x : x + width]
        for y in range(2 * pad + 1)
        for x in range(2 * pad + 1)
    ]


@pytest.mark.parametrize("augmentation", ["crop", "crop_flip"])
def test_every_result_is_a_window_of_the_padded_image(augmentation):
    images = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8)
    out, _ = augment(images, augmentation, generator())
    assert out.dtype == torch.uint8
    mirrored = 0
    for image, result in zip(images, out, strict=True):
        allowed = windows(image, padding_for(16))
        straight = any(torch.equal(result.float(), window) for window in allowed)
        flipped = any(torch.equal(result.float().flip(2), window) for window in allowed)
        assert straight or flipped
        mirrored += not straight
    assert (8 < mirrored < 32) if augmentation == "crop_flip" else mirrored == 0


def test_the_generator_decides():
    images = torch.rand(8, 1, 8, 8)
    first, same = (augment(images, "crop_flip", generator(1))[0] for _ in range(2))
    assert torch.equal(first, same)
    assert not torch.equal(first, augment(images, "crop_flip", generator(2))[0])
    assert augment(images, "none", generator())[0] is images


def test_label_maps_move_with_their_images():
    maps = torch.randint(0, 5, (12, 16, 16))
    images, moved = augment(maps[:, None].float(), "crop_flip", generator(3), maps)
    assert torch.equal(images[:, 0].long(), moved)
    assert not torch.equal(moved, maps)
    classes = torch.arange(12)
    assert augment(images, "crop", generator(), classes)[1] is classes


def test_padding_is_four_for_cifar():
    assert [padding_for(size) for size in (8, 28, 32, 64)] == [1, 3, 4, 8]
