"""Data sets by name: ``load(name=..., root=..., **options)``."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor

from rlprune.data.cache import cache_dir
from rlprune.data.dataset import Data
from rlprune.data.folder import (
    Folder,
    FolderImages,
    class_folders,
    decode,
    image_size,
    imagenet_transforms,
    scan,
)
from rlprune.data.maps import segmentation
from rlprune.data.preprocessing import preprocessing_of
from rlprune.data.sources import Deferred, draw
from rlprune.data.splits import Normalise, Split, StreamSplit, TensorSplit
from rlprune.data.tabular import tabular
from rlprune.data.text import text, text_file
from rlprune.errors import ConfigError, DataError
from rlprune.locate import locate

log = logging.getLogger(__name__)

Loader = Callable[..., Data]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_SMALL = 64
_STREAM_HOLDOUT = 5000


def load(name: str | None = None, *, _target_: str | None = None, **options: Any) -> Data:
    """Open a data set.

    Args:
        name: ``digits``, ``cifar10``, ``cifar100``, ``imagefolder``, ``imagenet``, ``text``,
            ``text_file``, ``tabular``, ``segmentation``, or a dotted path
            to a function that returns a ``Data``.
        _target_: Dotted path, Hydra's spelling for ``name``.
        **options: Options of the data set's loader, such as ``root``.

    Returns:
        The data.

    Raises:
        ConfigError: The name or an option is unknown.
        DataError: The files are missing or malformed.
    """
    if (name is None) == (_target_ is None):
        raise ConfigError(
            f"data.load needs exactly one of name and _target_, got {name!r} and {_target_!r}"
        )
    wanted = str(name if name is not None else _target_)
    loader = locate(wanted) if "." in wanted else LOADERS.get(wanted)
    if loader is None:
        near = difflib.get_close_matches(wanted, LOADERS, n=2)
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        raise ConfigError(
            f"unknown data set {wanted!r}{hint} There are {', '.join(LOADERS)}, and any "
            "function of yours as package.module.name"
        )
    try:
        data = loader(**options)
    except TypeError as error:
        if "unexpected keyword argument" in str(error) or "missing" in str(error):
            raise ConfigError(f"data set {wanted!r}: {error}") from error
        raise
    if not isinstance(data, Data):
        raise ConfigError(f"{wanted!r} returned {type(data).__name__}, expected an rlprune.Data")
    return data


def digits(
    *,
    holdout: float = 0.2,
    test_share: float = 0.2,
    augmentation: str = "crop",
    seed: int = 0,
) -> Data:
    """8 x 8 handwritten digits (1,797, bundled with scikit-learn), inputs ``[N, 1, 8, 8]``.

    Args:
        holdout: Share of the training split held out.
        test_share: Share of all digits in the test split, which is the same for every seed.
        augmentation: ``none`` or ``crop``; digits must not be mirrored.
        seed: Decides the held-out part.
    """
    if augmentation == "crop_flip":
        raise ConfigError("augmentation 'crop_flip' would mirror digits; use 'crop' or 'none'")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.tensor(bunch.images / 16.0, dtype=torch.float32).unsqueeze(1)
    y = torch.tensor(bunch.target, dtype=torch.int64)
    fixed = torch.Generator().manual_seed(0)
    test, train = draw(len(y), round(test_share * len(y)), y, fixed)
    return Data(
        (x[train], y[train]),
        test=Deferred(lambda: (x[test], y[test]), {"set": "digits", "share": test_share}),
        holdout=holdout,
        num_classes=10,
        augmentation=augmentation,
        mean=(0.305,),
        std=(0.376,),
        seed=seed,
        name="digits",
    )


def cifar10(**options: Any) -> Data:
    """CIFAR-10 as torchvision downloads it; options as in ``_cifar``."""
    return _cifar("CIFAR10", **options)


def cifar100(**options: Any) -> Data:
    """CIFAR-100 as torchvision downloads it; options as in ``_cifar``."""
    return _cifar("CIFAR100", **options)


def _cifar(
    kind: str,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    holdout: float | int = 0.1,
    augmentation: str = "crop_flip",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    seed: int = 0,
) -> Data:
    from torchvision import datasets

    folder = Path(root).expanduser() if root is not None else cache_dir() / "datasets"
    source = getattr(datasets, kind)

    def read(train: bool) -> tuple[Tensor, Tensor]:
        try:
            found = source(folder, train=train, download=download)
        except (URLError, OSError, RuntimeError) as error:
            raise DataError(
                f"{kind} is not in {folder} and could not be downloaded ({error}). Download "
                f"{source.url} elsewhere and place {source.filename} there, or give root= the "
                "folder that holds it"
            ) from error
        images = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
        return images, torch.tensor(found.targets)

    return Data(
        read(True),
        test=Deferred(lambda: read(False), {"set": kind, "part": "test"}),
        holdout=holdout,
        num_classes=100 if kind == "CIFAR100" else 10,
        augmentation=augmentation,
        mean=mean,
        std=std,
        seed=seed,
        name=kind.lower(),
    )


def imagefolder(
    *,
    root: str | os.PathLike[str],
    size: int | None = None,
    resize: int | None = None,
    augmentation: str | None = None,
    mean: Sequence[float] | None = IMAGENET_MEAN,
    std: Sequence[float] | None = IMAGENET_STD,
    preprocessing: str | None = None,
    holdout: float | int | None = None,
    workers: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Data:
    """A folder with ``train/<class>/`` and ``test/<class>/`` or ``val/<class>/``.

    Where both ``test`` and ``val`` exist, ``val`` is the held-out split. Small images are decoded
    once into memory (and a cache on disk); with ``augmentation="imagenet"`` images are streamed
    through torchvision's transforms.

    Args:
        root: The folder.
        size: Height and width of the inputs; None keeps the images' own.
        resize: Shorter side before the centre crop of streamed evaluation images.
        augmentation: ``none``, ``crop``, ``crop_flip`` or ``imagenet``; None takes ``crop_flip`` up
            to 64 pixels and ``imagenet`` above.
        mean: Per-channel mean after scaling to [0, 1].
        std: Per-channel standard deviation after scaling to [0, 1].
        preprocessing: Weights whose own size, crop, interpolation, mean and std are taken instead,
            see :func:`rlprune.data.preprocessing.preprocessing_of`.
        holdout: Share or number of training images held out; None takes a tenth, at most 5,000.
        workers: Loader processes for streamed images; None takes up to 8, one per core.
        cache: Folder for decoded images; None takes ``$RLPRUNE_CACHE`` or ``~/.cache/rlprune``.
        seed: Decides the held-out part.
        name: Shown in messages and reports; None takes the folder's name.
    """
    base = Path(root).expanduser()
    if not base.is_dir():
        raise DataError(f"image folder {base} does not exist; set data.root to the right one")
    interpolation = "bilinear"
    if preprocessing is not None:
        own = preprocessing_of(preprocessing)
        size, resize, mean, std = own.size, own.resize, own.mean, own.std
        interpolation = own.interpolation
    train = scan(base / "train")
    roles = [role for role in ("test", "val") if (base / role).is_dir()]
    if not roles:
        raise DataError(f"{base} has neither test/ nor val/ beside train/")
    for role in roles:
        _same_classes(train, base / role)
    side = size if size is not None else max(image_size(train))
    chosen = augmentation or ("crop_flip" if side <= _SMALL else "imagenet")
    normalise = Normalise(mean, std)
    loaders = min(8, os.cpu_count() or 1) if workers is None else workers

    def open_split(folder: Folder) -> Split:
        if chosen == "imagenet":
            into, out = imagenet_transforms(side, resize, interpolation)
            return StreamSplit(
                FolderImages(folder, into),
                FolderImages(folder, out),
                torch.arange(len(folder.files)),
                folder.labels,
                normalise,
                loaders,
            )
        return TensorSplit(decode(folder, size, cache), folder.labels, normalise)

    held: Any = holdout if holdout is not None else min(_STREAM_HOLDOUT, -(-len(train.files) // 10))
    if len(roles) == 2 and holdout is None:
        held = lambda: open_split(scan(base / "val"))  # noqa: E731
    tested = scan(base / roles[0])
    kind: dict[str, Any] = {"size": size, "resize": resize, "streamed": chosen == "imagenet"}
    if interpolation != "bilinear":
        kind["interpolation"] = interpolation
    return Data(
        open_split(train),
        test=Deferred(lambda: open_split(tested), {"files": tested.listing, **kind}),
        holdout=held,
        class_names=train.classes,
        augmentation=chosen,
        mean=mean,
        std=std,
        workers=loaders,
        seed=seed,
        name=name or base.name,
    )


def imagenet(**options: Any) -> Data:
    """ImageNet as an image folder of 224 x 224 crops; options as in ``imagefolder``."""
    preset = {"size": 224, "resize": 256, "augmentation": "imagenet", "name": "imagenet"}
    return imagefolder(**{**preset, **options})


LOADERS: dict[str, Loader] = {
    "digits": digits,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "imagefolder": imagefolder,
    "imagenet": imagenet,
    "text": text,
    "text_file": text_file,
    "tabular": tabular,
    "segmentation": segmentation,
}


def _same_classes(train: Folder, other: Path) -> None:
    found = set(class_folders(other))
    missing, extra = sorted(set(train.classes) - found), sorted(found - set(train.classes))
    if missing or extra:
        raise DataError(
            f"{train.root} and {other} hold different classes: "
            + "; ".join(
                f"{label} {', '.join(names[:5])}"
                for label, names in (("only in train:", missing), (f"only in {other.name}:", extra))
                if names
            )
        )
