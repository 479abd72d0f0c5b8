"""Objects by their dotted path, as configurations name them."""

from __future__ import annotations

import importlib
from typing import Any

from rlprune.errors import ConfigError


def locate(path: str) -> Any:
    """Import the object that a dotted path names, e.g. ``my_package.costs.energy``.

    Args:
        path: Module path and attribute path, joined by dots.

    Returns:
        The object.

    Raises:
        ConfigError: The path is malformed, no module matches it, the module itself fails to
            import, or it holds no such attribute.
    """
    parts = path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ConfigError(f"{path!r} is not a dotted path such as 'my_package.my_function'")
    for split in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:split])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name + ".").startswith(error.name + "."):
                continue
            raise ConfigError(f"{path!r}: importing {name!r} failed: {error}") from error
        except Exception as error:
            raise ConfigError(
                f"{path!r}: importing {name!r} failed: {type(error).__name__}: {error}"
            ) from error
        return _attribute(found, parts[split:], path, name)
    raise ConfigError(
        f"{path!r}: there is no module {parts[0]!r}; is its folder on PYTHONPATH, or installed?"
    )


def _attribute(found: Any, names: list[str], path: str, owner: str) -> Any:
    for name in names:
        if not hasattr(found, name):
            public = [item for item in dir(found) if not item.startswith("_")]
            raise ConfigError(
                f"{path!r}: {owner!r} has no attribute {name!r}; it has {', '.join(public[:20])}"
            )
        found, owner = getattr(found, name), f"{owner}.{name}"
    return found
