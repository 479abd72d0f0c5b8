"""The Hydra application behind ``rlprune``."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlprune.cli.parts import RECORD_FOLDER
from rlprune.cli.trust import sign
from rlprune.errors import ConfigError, RlpruneError
from rlprune.files import write_text
from rlprune.run.config import config_dir

log = logging.getLogger(__name__)


class RunFailed(CompactHydraException):
    """A run ended in an expected error; Hydra prints the message without a traceback."""


def launch(arguments: Sequence[str]) -> None:
    """Run Hydra on a command line."""
    sys.argv = [sys.argv[0], *arguments]
    app = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(task)
    app()


def task(config: DictConfig) -> float:
    """One run.

    Args:
        config: The composed configuration.

    Returns:
        The objective that sweepers maximise: the held-out metric after fine-tuning, never the test
        split. NaN where the report stage did not run.

    Raises:
        RunFailed: Something is wrong; the message says what.
    """
    from rlprune.cli.launching import environment_of, under_torchrun
    from rlprune.training import team
    from rlprune.training.team import asked_for

    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    settings = HydraConfig.get()
    folder = _shown(Path(settings.runtime.output_dir))
    try:
        plain = _plain(config)
        launcher = plain["launcher"]
        environment = environment_of(launcher)
        if launcher["name"] == "torchrun" and not asked_for():
            sources = settings.runtime.config_sources
            folders = [str(s.path) for s in sources if s.provider == "command-line"]
            return under_torchrun(launcher, list(settings.overrides.task), folders, folder)
        with team(environment) as leader:
            return _run(config, plain, folder) if leader else math.nan
    except RlpruneError as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        raise RunFailed(_message(error, folder, settings.mode)) from None
    except KeyboardInterrupt:
        raise RunFailed(f"Stopped. Go on with:  rlprune run={folder}") from None


def _run(config: DictConfig, plain: dict[str, Any], folder: Path) -> float:
    from rich.console import Console

    from rlprune.cli.job import run
    from rlprune.report.console import show_result

    redo = plain["run"] is not None
    result = run(plain, folder, redo=redo, record=lambda: _record(config, folder))
    if result is None:
        return math.nan
    show_result(Console(), result)
    return float(result.report.get("objective", math.nan))


def _plain(config: DictConfig) -> dict[str, Any]:
    try:
        missing = OmegaConf.missing_keys(config)
        if missing:
            names = ", ".join(sorted(missing))
            raise ConfigError(f"these settings have no value yet: {names}; give {names}=...")
        content = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the configuration cannot be resolved: {error}") from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def _record(config: DictConfig, folder: Path) -> None:
    """Write the command line and what it composed to, which ``rlprune run=FOLDER`` reads."""
    settings = HydraConfig.instance().cfg
    assert settings is not None
    overrides = OmegaConf.to_container(HydraConfig.get().overrides.task)
    target = folder / RECORD_FOLDER
    for name, content in (("config", config), ("hydra", settings), ("overrides", overrides)):
        write_text(target / f"{name}.yaml", OmegaConf.to_yaml(content))
    sign(target)


def _shown(folder: Path) -> Path:
    """Relative to the working directory where it lies below it."""
    try:
        return folder.relative_to(Path.cwd())
    except ValueError:
        return folder


def _message(error: RlpruneError, folder: Path, mode: RunMode | None) -> str:
    kept = ""
    if (folder / "run.json").exists():
        how = f"rlprune run={folder}" if mode == RunMode.RUN else "the same sweep again"
        kept = f"\nWhat is finished is kept in {folder}; once this is mended, go on with: {how}"
    return f"{type(error).__name__}: {error}{kept}"
