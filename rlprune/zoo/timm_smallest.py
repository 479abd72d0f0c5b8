"""The smallest member of every architecture family of timm (optional package ``timm``)."""

from __future__ import annotations

import json
import logging
import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlprune.data import cache_dir
from rlprune.errors import ConfigError
from rlprune.files import write_atomically
from rlprune.progress import track

logger = logging.getLogger(__name__)

_PREFIXES = frozenset("tf legacy dm eca ese gc nf wide tiny".split())
"""First words of names that say how a network was trained or changed, not what it is."""
_LARGE = re.compile(r"giant|huge|large|xxl|_\d+b|so\d+m|enormous|_xl")
SIZES = (64, 96, 128, 160, 192, 224, 256)
"""Heights of square pictures to try, in order."""


def family(name: str, module: str) -> str:
    """Family of a timm model: the file it is defined in and the word its name begins with."""
    words = name.lower().split("_")
    word = words[1] if words[0] in _PREFIXES and len(words) > 1 else words[0]
    return f"{module}/{re.sub(r'(?<!v)[0-9]+.*$', '', word) or words[0]}"


@cache
def smallest() -> dict[str, str]:
    """Name of the member with the fewest parameters by family, the smallest families first.

    Every model is built without memory once, which takes some minutes; the result is kept in the
    cache folder, by timm's version.

    Raises:
        ConfigError: timm is not installed.
    """
    timm = _timm()
    kept = cache_dir() / "zoo" / f"timm-{timm.__version__}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    from timm.models import _registry

    members: dict[str, list[str]] = {}
    for name in timm.list_models():
        if not name.startswith("test_"):
            members.setdefault(family(name, _registry._model_to_module[name]), []).append(name)
    found: dict[str, tuple[int, str]] = {}
    for key, names in track(members.items(), "smallest members", total=len(members)):
        small = [n for n in names if not _LARGE.search(n)] or names
        found[key] = min((_parameters(n), n) for n in small)
    chosen = {key: name for key, (_, name) in sorted(found.items(), key=lambda x: x[1])}
    text = json.dumps(chosen, indent=0)
    write_atomically(kept, lambda path: Path(path).write_text(text))
    return chosen


def build(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A model with random weights and the shape of the smallest picture that it takes.

    Raises:
        RuntimeError: it runs on no picture of `SIZES`.
    """
    timm = _timm()
    failure: Exception | None = None
    for size in SIZES:
        options: dict[str, Any] = {"img_size": size}
        try:
            try:
                model = timm.create_model(name, **options)
            except TypeError:  # a network that takes any size is not told one
                model = timm.create_model(name)
            with torch.no_grad():
                model.eval()(torch.zeros(1, 3, size, size))
            return model, (2, 3, size, size)
        except Exception as error:  # whatever a network objects to a size with
            failure = error
    raise RuntimeError(f"{name} runs on no picture of {SIZES} pixels") from failure


def _parameters(name: str) -> int:
    timm = _timm()
    try:
        with torch.device("meta"):
            model = timm.create_model(name)
    except Exception as error:  # some constructors look at values
        logger.debug("%s is not built on meta: %s", name, error)
        model = timm.create_model(name)
    return sum(p.numel() for p in model.parameters())


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ConfigError("the timm zoo needs the package timm: pip install timm") from error
    return timm
