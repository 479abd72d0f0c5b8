"""Where the shipped configurations are."""

from __future__ import annotations

from pathlib import Path

import rlprune
from rlprune.errors import ConfigError


def config_dir() -> Path:
    """The folder of the shipped configurations: inside a wheel install, or beside the package.

    Returns:
        An absolute path.

    Raises:
        ConfigError: The installation holds no configurations.
    """
    package = Path(rlprune.__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigError(f"no configurations beside {package}; install rlprune again")
