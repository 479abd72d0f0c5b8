"""The base of callbacks, and how they are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlprune.errors import ConfigError
from rlprune.plugins import Registry


class Callback:
    """Told what a run does; override what is of interest.

    A resumed search is replayed, so evaluations that are on disk are told once more; stages that
    are done are not.

    Example:
        >>> class StopWhenGood(Callback):
        ...     def on_evaluation(self, row):
        ...         return row["best_feasible"] > -0.01
    """

    def on_start(self, told: Mapping[str, Any]) -> None:
        """A run begins, or goes on.

        Args:
            told: ``run`` (the folder's name, or None), ``settings`` (what every stage depends on).
        """

    def on_evaluation(self, row: Mapping[str, float]) -> bool | None:
        """A candidate was evaluated that the search had not seen.

        Args:
            row: A row of ``history.csv``: ``evaluation`` (its number), ``quality``, ``feasible``,
                ``best_feasible``, ``cost/NAME`` of every budget, what the agent logs.

        Returns:
            True ends the search: it chooses its plan from what has been evaluated.
        """
        return None

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """An epoch of fine-tuning is over, and its checkpoint is written.

        Args:
            row: A row of ``finetune.csv``: ``epoch`` (from 1), ``lr``, and
                ``train_METRIC`` and ``holdout_METRIC`` of the task.
        """

    def on_stage(self, stage: str, result: Mapping[str, Any]) -> None:
        """A stage has run, and its record is written.

        Args:
            stage: ``search``, ``finetune``, ``export`` or ``report``.
            result: What later stages need of it; of the last one the whole report.
        """

    def on_end(self) -> None:
        """The run is over, by success or by an error."""


CALLBACKS: Registry[Any] = Registry("callback", "rlprune.callbacks")
"""Callbacks by name."""


def resolve(given: Any) -> tuple[Callback, ...]:
    """Callbacks from what a user gives.

    Args:
        given: A callback, a class, a registered name or dotted path, a mapping with ``_target_``
            and options, a list of these, or None.

    Raises:
        ConfigError: Something is none of these, or a class refuses its options.
    """
    if given is None:
        return ()
    items = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    return tuple(_one(item) for item in items)


def _one(item: Any) -> Callback:
    options: dict[str, Any] = {}
    found = item
    if isinstance(item, Mapping):
        options = {str(key): value for key, value in item.items()}
        found = options.pop("_target_", None) or options.pop("name", None)
    if isinstance(found, str):
        found = CALLBACKS.find(found)
    if isinstance(found, type):
        try:
            found = found(**options)
        except TypeError as error:
            raise ConfigError(f"callback {item!r}: {error}") from error
    if not isinstance(found, Callback):
        raise ConfigError(
            f"callback {item!r}: expected a rlprune.callbacks.Callback, its class or dotted path"
        )
    return found
