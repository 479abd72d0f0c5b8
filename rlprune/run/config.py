"""The shipped configurations, and what overrides make of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def compose(overrides: Sequence[str], folder: Path | None = None) -> dict[str, Any]:
    """The configuration that overrides make, without a run.

    Args:
        overrides: As on the command line.
        folder: Folder with more configuration groups.

    Raises:
        ConfigError: Hydra refuses them.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    extra = [] if folder is None else [f"hydra.searchpath=[file://{folder.resolve()}]"]
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            config = hydra_compose("config", [*overrides, *extra])
            content = OmegaConf.to_container(config, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(str(error)) from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}
