"""Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlprune.callbacks.base import CALLBACKS, Callback
from rlprune.errors import ConfigError

_NUMBERS = (int, float)


@CALLBACKS.register("wandb")
class WandbLogger(Callback):
    """Logs a run to Weights & Biases: every evaluation, every epoch, and the report's numbers.

    Args:
        project: The project.
        **options: Of ``wandb.init``: ``mode="offline"``, ``dir``, ``group``, ``tags``, ...

    Raises:
        ConfigError: The package is not installed.
    """

    def __init__(self, project: str = "rlprune", **options: Any) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(
                f"WandbLogger needs Weights & Biases ({error}): pip install 'rlprune[wandb]'"
            ) from error
        self._wandb = wandb
        self._options = {"project": project, **options}
        self._run: Any = None

    def on_start(self, told: Mapping[str, Any]) -> None:
        """Open a run with the settings of every stage as its configuration."""
        options = {"name": told.get("run"), "config": dict(told["settings"]), **self._options}
        self._run = self._wandb.init(**options)

    def on_evaluation(self, row: Mapping[str, float]) -> None:
        """Log a row of the search under ``search/``."""
        self._run.log({f"search/{name}": value for name, value in row.items()})

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Log a row of the fine-tuning under ``finetune/``."""
        self._run.log({f"finetune/{name}": value for name, value in row.items()})

    def on_stage(self, stage: str, result: Mapping[str, Any]) -> None:
        """Put the report's numbers of the dense and the pruned network into the summary."""
        for network in ("dense", "pruned") if stage == "report" else ():
            for name, value in result.get(network, {}).items():
                if isinstance(value, _NUMBERS):
                    self._run.summary[f"{network}/{name}"] = value

    def on_end(self) -> None:
        """Close the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None
