"""Tasks by name, dotted path or entry point, and the one that data obviously stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rlprune.errors import ConfigError, DataError
from rlprune.inputs import ExampleInputs
from rlprune.plugins import Registry
from rlprune.tasks.base import Task
from rlprune.tasks.classification import (
    Classification,
    ImageClassification,
    TextClassification,
)
from rlprune.tasks.language import LanguageModeling
from rlprune.tasks.regression import Regression
from rlprune.tasks.segmentation import Segmentation

TASKS: Registry[Any] = Registry("task", "rlprune.tasks")
"""Tasks by name: those of rlprune, and those that installed packages declare as entry points."""

for _task in (
    Classification,
    ImageClassification,
    TextClassification,
    LanguageModeling,
    Regression,
    Segmentation,
):
    TASKS.register(_task.name)(_task)

AUTO = "auto"


def resolve(task: Any) -> Task | None:
    """Make a task of what users write.

    Args:
        task: A :class:`Task` or a subclass; a name of :data:`TASKS`; the name of an entry point in
            ``rlprune.tasks``; a dotted path to a subclass or a function that returns a task; or a
            mapping with ``name`` or ``_target_`` and options, None for their defaults. None or
            ``auto`` leaves it open.

    Returns:
        The task, or None where it is to be inferred.

    Raises:
        ConfigError: The name is unknown, or an option is.
    """
    if task is None or isinstance(task, Task):
        return task
    options: dict[str, Any] = {}
    if isinstance(task, Mapping):
        named = ("name", "_target_")
        options = {k: v for k, v in task.items() if k not in named and v is not None}
        task = task.get("_target_", task.get("name"))
        if task is None:
            raise ConfigError("task: give name=one of " + ", ".join(TASKS) + ", or _target_=a path")
    if task == AUTO:
        return None
    builder = TASKS.find(task) if isinstance(task, str) else task
    if not callable(builder):
        raise ConfigError(f"task must be a name, a Task or a mapping, got {task!r}")
    try:
        made = builder(**options)
    except TypeError as error:
        raise ConfigError(f"task {task!r}: {error}") from error
    if not isinstance(made, Task):
        raise ConfigError(f"task {task!r} is a {type(made).__name__}, expected an rlprune Task")
    return made


def infer(inputs: ExampleInputs, labels: Tensor | None, where: str = "the data") -> Task:
    """The task that a batch obviously stands for.

    Class numbers ``[N]`` stand for classification (of images, texts or numbers), numbers with a
    fraction for regression, label maps ``[N, H, W]`` for segmentation, tokens ``[N, T]`` beside
    tokens of the same shape for language modelling.

    Args:
        inputs: Inputs of the batch.
        labels: Its labels.
        where: What it is part of, for the message.

    Raises:
        DataError: It is not obvious.
    """
    if labels is not None and labels.ndim:
        if labels.is_floating_point():
            return Regression()
        tokens = _tokens(inputs)
        if labels.ndim == 1 and tokens is not None:
            return TextClassification()
        if labels.ndim == 1:
            images = isinstance(inputs, Tensor) and inputs.ndim == 4
            return ImageClassification() if images else Classification()
        if labels.ndim == 2 and tokens is not None and tokens.shape == labels.shape:
            return LanguageModeling()
        if labels.ndim == 3 and tokens is None:
            return Segmentation()
    found = "no labels" if labels is None else f"{labels.dtype} labels {tuple(labels.shape)}"
    raise DataError(
        f"{where}: {found} do not tell what the network is for; give task=one of "
        f"{', '.join(TASKS)}, or a rlprune.tasks.Task of your own"
    )


def _tokens(inputs: ExampleInputs) -> Tensor | None:
    """Token numbers ``[N, T]`` among the inputs, if they are a text."""
    found: Any = inputs
    if isinstance(inputs, Mapping):
        found = inputs.get("input_ids")
    elif isinstance(inputs, (list, tuple)) and inputs:
        found = inputs[0]
    if not isinstance(found, Tensor) or found.ndim != 2:
        return None
    return found if not found.is_floating_point() and found.dtype != torch.uint8 else None
