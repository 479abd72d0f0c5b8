"""Images with label maps: ``<root>/<split>/images/`` beside ``<root>/<split>/masks/``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlprune.data.dataset import Data
from rlprune.data.folder import EXTENSIONS, open_image
from rlprune.data.sources import Deferred
from rlprune.errors import DataError
from rlprune.progress import track
from rlprune.tasks import Segmentation

IMAGES, MASKS = "images", "masks"


def segmentation(
    *,
    root: str | os.PathLike[str],
    size: int | None = None,
    ignore: int = 255,
    num_classes: int | None = None,
    augmentation: str = "crop_flip",
    mean: Sequence[float] | None = (0.485, 0.456, 0.406),
    std: Sequence[float] | None = (0.229, 0.224, 0.225),
    holdout: float | int = 0.1,
    seed: int = 0,
    name: str | None = None,
) -> Data:
    """Images to segment, held in memory.

    Every image has a mask of the same name (of any image type) whose grey values or palette
    indices are class numbers.

    Args:
        root: Folder with ``train/`` and ``test/`` or ``val/``, in each ``images/`` and ``masks/``.
        size: Height and width of the inputs; None keeps the images' own, the same for all.
        ignore: Class number of pixels that belong to no class.
        num_classes: Number of classes; None takes the highest class number of the training masks.
        augmentation: ``none``, ``crop`` or ``crop_flip``; masks move with their images.
        mean: Per-channel mean after scaling to [0, 1].
        std: Per-channel standard deviation after scaling to [0, 1].
        holdout: Share or number of training images held out.
        seed: Decides the held-out part.
        name: Shown in messages and reports; None takes the folder's name.

    Raises:
        DataError: A folder, an image or a mask is missing or of another size.
    """
    base = Path(root).expanduser()
    if not base.is_dir():
        raise DataError(f"folder {base} does not exist; set data.root to the right one")
    role = next((role for role in ("test", "val") if (base / role).is_dir()), None)
    return Data(
        _split(base / "train", size),
        test=None
        if role is None
        else Deferred(lambda: _split(base / role, size), _listed(base / role, size)),
        task=Segmentation(ignore),
        holdout=holdout,
        num_classes=num_classes,
        augmentation=augmentation,
        mean=mean,
        std=std,
        facts={"in_channels": 3},
        seed=seed,
        name=name or base.name,
    )


def _split(folder: Path, size: int | None) -> tuple[Tensor, Tensor]:
    for part in (IMAGES, MASKS):
        if not (folder / part).is_dir():
            raise DataError(f"{folder / part} does not exist; expected {folder}/images and /masks")
    images = _files(folder / IMAGES)
    masks = {path.stem: path for path in _files(folder / MASKS)}
    missing = [path for path in images if path.stem not in masks]
    if missing:
        raise DataError(f"image {missing[0]} has no mask {folder / MASKS / missing[0].stem}.*")
    pairs = [
        (_pixels(path, size, mask=False), _pixels(masks[path.stem], size, mask=True))
        for path in track(images, f"Reading {folder}", total=len(images))
    ]
    for (image, mask), path in zip(pairs, images, strict=True):
        if image.shape[:2] != mask.shape or image.shape != pairs[0][0].shape:
            raise DataError(
                f"image {path} is {image.shape[:2]}, its mask {mask.shape}, the first image "
                f"{pairs[0][0].shape[:2]}; give size= to bring all to one size"
            )
    x = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2)
    return x.contiguous(), torch.from_numpy(np.stack([mask for _, mask in pairs])).long()


def _listed(folder: Path, size: int | None) -> dict[str, Any]:
    """What tells a split that must not be read yet: names and sizes of its files."""
    parts = [path for part in (IMAGES, MASKS) for path in _files(folder / part)]
    return {"files": [(path.name, path.stat().st_size) for path in parts], "size": size}


def _files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.name.lower().endswith(EXTENSIONS))
    if not found:
        raise DataError(f"{folder} holds no image ({', '.join(EXTENSIONS)})")
    return found


def _pixels(path: Path, size: int | None, mask: bool) -> np.ndarray:
    from PIL import Image

    image = open_image(path, None if mask else "RGB")
    if mask and image.mode not in ("L", "P", "1", "I", "I;16"):
        raise DataError(
            f"mask {path} is a {image.mode} image; class numbers are grey values or palette indices"
        )
    if size is not None and image.size != (size, size):
        how = Image.Resampling.NEAREST if mask else Image.Resampling.BILINEAR
        image = image.resize((size, size), how)
    return np.array(image)
