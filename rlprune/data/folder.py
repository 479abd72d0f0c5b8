"""Image folders ``<root>/<split>/<class>/<image>``: scanned, decoded once, or streamed."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from rlprune.data.cache import cache_dir
from rlprune.errors import DataError

log = logging.getLogger(__name__)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
_MEMORY_LIMIT = 8 * 2**30
_CHUNK = 256
_READ = 16


@dataclass(frozen=True)
class Folder:
    """The images of one split, found but not read.

    Attributes:
        root: The split's folder.
        classes: Class folders in sorted order; the position is the class number.
        files: Images relative to ``root``, by class, then by name.
        labels: Class number per file, ``[N]``.
        digest: Changes when a file is added, removed or modified, or the folder moved.
        listing: Digest of names and sizes alone, the same for a copy of the folder.
    """

    root: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: Tensor
    digest: str
    listing: str


def scan(root: Path) -> Folder:
    """List the images under ``root/<class>/``, in torchvision's ``ImageFolder`` order.

    Args:
        root: Folder of class folders.

    Returns:
        The folder's images.

    Raises:
        DataError: ``root`` does not exist, has no class folders, or a class has no image.
    """
    classes = class_folders(root)
    files: list[str] = []
    labels: list[int] = []
    state = hashlib.sha256(str(root.resolve()).encode())
    listing = hashlib.sha256()
    for number, name in enumerate(classes):
        found = sorted(_images(root / name, name))
        if not found:
            raise DataError(
                f"class folder {root / name} holds no image ({', '.join(EXTENSIONS)}); remove the "
                "folder or fill it"
            )
        for path, size, modified in found:
            files.append(path)
            state.update(f"{path}\0{size}\0{modified}\n".encode())
            listing.update(f"{path}\0{size}\n".encode())
        labels += [number] * len(found)
    return Folder(
        root, classes, tuple(files), torch.tensor(labels), state.hexdigest(), listing.hexdigest()
    )


def class_folders(root: Path) -> tuple[str, ...]:
    """Sorted names of the class folders of a split; raises DataError when there are none."""
    if not root.is_dir():
        raise DataError(f"image folder {root} does not exist or is not a folder")
    classes = tuple(sorted(entry.name for entry in os.scandir(root) if entry.is_dir()))
    if not classes:
        raise DataError(f"{root} has no class folders; expected {root}/<class>/<image>")
    return classes


def decode(folder: Folder, size: int | None, cache: str | os.PathLike[str] | None) -> Tensor:
    """Decode every image to RGB, once: the result is kept on disk and reused while files stay.

    Args:
        folder: What ``scan`` found.
        size: Height and width; images of another size are resized (shorter side) and cropped at
            the centre. None keeps the images' own size, which must be the same for all.
        cache: Folder of the cache, None for the default one.

    Returns:
        uint8 ``[N, 3, H, W]``.

    Raises:
        DataError: An image cannot be read or has another size, or all together are too large.
    """
    path = cache_dir(cache) / "decoded" / f"{folder.digest[:32]}-{size or 'own'}.safetensors"
    images = _read_cache(path, len(folder.files))
    if images is None:
        images = _decode_all(folder, size)
        _write_cache(path, images)
    return images


class FolderImages(Dataset[tuple[Any, int]]):
    """Images read and transformed one by one.

    Args:
        folder: What ``scan`` found.
        transform: Applied to the RGB PIL image.
    """

    def __init__(self, folder: Folder, transform: Callable[[Any], Any]) -> None:
        self.folder, self.transform = folder, transform
        self.targets = folder.labels

    def __len__(self) -> int:
        return len(self.folder.files)

    def identity(self) -> Any:
        """Names and sizes of the files, a few decoded images, and the transform."""
        count = len(self)
        chosen = sorted({at * count // _READ for at in range(_READ)})
        images = [open_image(self.folder.root / self.folder.files[at]).tobytes() for at in chosen]
        return {"files": self.folder.listing, "images": images, "transform": self.transform}

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = open_image(self.folder.root / self.folder.files[index])
        return self.transform(image), int(self.targets[index])


def imagenet_transforms(
    size: int, resize: int | None, interpolation: str = "bilinear"
) -> tuple[Callable, Callable]:
    """Standard ImageNet transforms; both return uint8 tensors ``[3, size, size]``.

    Args:
        size: Height and width of the crops.
        resize: Shorter side before the centre crop; None takes ``size * 256 / 224``.
        interpolation: ``bilinear``, ``bicubic``, or another one of torchvision's.

    Returns:
        Training (random resized crop, mirror) and evaluation (resize, centre crop) transforms.
    """
    from torchvision.transforms import InterpolationMode, v2

    way = InterpolationMode(interpolation)
    train = v2.Compose(
        [
            v2.RandomResizedCrop(size, interpolation=way, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ]
    )
    side = resize if resize is not None else round(size * 256 / 224)
    evaluate = v2.Compose(
        [
            v2.Resize(side, interpolation=way, antialias=True),
            v2.CenterCrop(size),
            v2.PILToTensor(),
        ]
    )
    return train, evaluate


def image_size(folder: Folder) -> tuple[int, int]:
    """Height and width of the folder's first image."""
    width, height = open_image(folder.root / folder.files[0]).size
    return height, width


def _images(root: Path, prefix: str) -> Iterable[tuple[str, int, int]]:
    for entry in os.scandir(root):
        if entry.is_dir():
            yield from _images(Path(entry.path), f"{prefix}/{entry.name}")
        elif entry.name.lower().endswith(EXTENSIONS):
            status = entry.stat()
            yield f"{prefix}/{entry.name}", status.st_size, status.st_mtime_ns


def open_image(path: Path, mode: str | None = "RGB") -> Any:
    """An image file, decoded.

    Args:
        path: The file.
        mode: What it is converted to; None keeps it as it is.

    Raises:
        DataError: It cannot be read.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            return image if mode is None else image.convert(mode)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise DataError(f"image {path} cannot be read ({error}); replace or remove it") from error


def _decode_all(folder: Folder, size: int | None) -> Tensor:
    height, width = (size, size) if size is not None else image_size(folder)
    count = len(folder.files)
    need = count * 3 * height * width
    if need > _MEMORY_LIMIT:
        raise DataError(
            f"{folder.root}: {count} images of {height}x{width} take {need / 2**30:.1f} GiB in "
            "memory; use augmentation=imagenet, which streams them, or a smaller size"
        )
    out = np.empty((count, 3, height, width), dtype=np.uint8)

    def fill(part: Sequence[int]) -> int:
        for index in part:
            image = _fit(open_image(folder.root / folder.files[index]), size)
            if (image.height, image.width) != (height, width):
                raise DataError(
                    f"image {folder.root / folder.files[index]} is {image.height}x{image.width}, "
                    f"the first one {height}x{width}; give size= to resize all to one size"
                )
            out[index] = np.asarray(image).transpose(2, 0, 1)
        return len(part)

    log.info("decoding %d images of %s, once", count, folder.root)
    from rlprune.progress import track

    parts = [range(i, min(i + _CHUNK, count)) for i in range(0, count, _CHUNK)]
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for _ in track(pool.map(fill, parts), f"Decoding {folder.root}", total=len(parts)):
            pass
    return torch.from_numpy(out)


def _fit(image: Any, size: int | None) -> Any:
    if size is None or (image.width, image.height) == (size, size):
        return image
    from PIL import Image

    scale = size / min(image.width, image.height)
    width, height = round(image.width * scale), round(image.height * scale)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _read_cache(path: Path, count: int) -> Tensor | None:
    if not path.is_file():
        return None
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        images = load_file(path)["images"]
    except (SafetensorError, OSError, KeyError) as error:
        log.warning("decoded images in %s are unreadable (%s); decoding again", path, error)
        return None
    return images if len(images) == count else None


def _write_cache(path: Path, images: Tensor) -> None:
    from safetensors.torch import save_file

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"images": images}, temporary)
        os.replace(temporary, path)
    except OSError as error:
        log.warning("decoded images are not kept: cannot write %s (%s)", path, error)
        temporary.unlink(missing_ok=True)
