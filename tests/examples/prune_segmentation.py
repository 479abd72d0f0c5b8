"""Train a small U-Net to find handwritten digits on photographs, and prune it.

    python tests/examples/prune_segmentation.py
    python tests/examples/prune_segmentation.py --named    # and to tell them apart: takes longer
    python tests/examples/prune_segmentation.py --root FOLDER --size 64

FOLDER holds ``train/images`` and ``train/masks``, and the same below ``test``. Without it, digits
of scikit-learn's set are drawn on pieces of its two photographs; their pixels are one class (one
for each digit with ``--named``), all others are background. Test images show digits that no
training image shows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor
from torch.nn.functional import interpolate

import rlprune
from rlprune import Data, models
from rlprune import data as data_module
from rlprune.training import FineTune, Pretrain, pretrain

SIDE, DIGIT = 32, 16
RECIPE = {"optimizer": "adamw", "lr": 5e-3, "weight_decay": 0.01, "batch_size": 16}


def drawn(count: int, test: bool, seed: int, named: bool) -> tuple[Tensor, Tensor]:
    """Images ``[count, 3, 32, 32]`` uint8 with up to three digits, and their label maps."""
    generator = torch.Generator().manual_seed(seed)

    def below(limit: int) -> int:
        return int(torch.randint(limit, (1,), generator=generator))

    digits = load_digits()
    strokes = interpolate(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, DIGIT)
    names = torch.tensor(digits.target) + 1 if named else torch.ones(len(digits.target)).long()
    half = len(names) // 2
    photographs = [torch.tensor(p).permute(2, 0, 1).float() for p in load_sample_images().images]
    images, maps = [], []
    for _ in range(count):
        photograph = photographs[below(len(photographs))]
        top, left = (below(size - SIDE) for size in photograph.shape[1:])
        image = photograph[:, top : top + SIDE, left : left + SIDE].clone()
        labels = torch.zeros(SIDE, SIDE, dtype=torch.long)
        for _ in range(1 + below(3)):
            at = below(half) + (half if test else 0)
            y, x = below(SIDE - DIGIT + 1), below(SIDE - DIGIT + 1)
            stroke = strokes[at, 0]
            part = image[:, y : y + DIGIT, x : x + DIGIT]
            colour = 255.0 * torch.rand(3, 1, 1, generator=generator)
            part.copy_(torch.lerp(part, colour.expand_as(part), stroke))
            labels[y : y + DIGIT, x : x + DIGIT][stroke > 0.5] = names[at]
        images.append(image)
        maps.append(labels)
    return torch.stack(images).to(torch.uint8), torch.stack(maps)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the example; returns its report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, help="folder of images and masks")
    parser.add_argument("--size", type=int, help="height and width its images are brought to")
    parser.add_argument("--named", action="store_true", help="tell digits apart")
    parser.add_argument("--images", type=int, default=2000, help="images drawn for training")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=60)
    parser.add_argument("--macs", type=float, default=0.3)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of the run")
    asked = parser.parse_args(arguments)
    if asked.root is not None:
        data = data_module.load("segmentation", root=asked.root, size=asked.size)
    else:
        data = Data(
            drawn(asked.images, False, 0, asked.named),
            test=lambda: drawn(asked.images // 4, True, 1, asked.named),
            num_classes=11 if asked.named else 2,
            mean=(0.45, 0.45, 0.45),
            std=(0.27, 0.27, 0.27),
            name="digits on photographs",
        )
    print(data)
    dense = models.create(
        "unet", num_classes=data.num_classes, width=asked.width, levels=3, seed=asked.seed
    )
    training = Pretrain(**RECIPE, epochs=asked.epochs, label_smoothing=0.0)
    trained = pretrain(dense, data, training, seed=asked.seed)
    result = rlprune.prune(
        trained.model,
        data.example_inputs,
        budgets={"macs": asked.macs},
        data=data,
        evaluations=asked.evaluations,
        evaluator={"images": 64, "rescore_images": 128, "calibration_images": 64, "batch_size": 64},
        finetune=FineTune(**RECIPE, epochs=asked.epochs),
        exports=(),
        out_dir=asked.out,
        seed=asked.seed,
    )
    return result.report


if __name__ == "__main__":
    from rlprune.report.rows import comparison

    for row in comparison(main()):
        print(*row, sep=" | ", file=sys.stdout)
