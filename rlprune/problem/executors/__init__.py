"""Where candidates are measured: in this process, in several, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rlprune.errors import ConfigError
from rlprune.plugins import Registry
from rlprune.problem.executors.base import Executor, HasClock
from rlprune.problem.executors.processes import ProcessExecutor
from rlprune.problem.executors.ray_cluster import RayExecutor
from rlprune.problem.executors.serial import SerialExecutor

EXECUTORS: Registry[Callable[..., Executor]] = Registry("executor", "rlprune.executors")
"""Executors by name."""

EXECUTORS.register("serial")(SerialExecutor)
EXECUTORS.register("processes")(ProcessExecutor)
EXECUTORS.register("ray")(RayExecutor)


def create_executor(executor: str | Mapping[str, Any] | Executor, **options: Any) -> Executor:
    """Makes an executor.

    Args:
        executor: a name, the dotted path of a class, a mapping with ``name`` and options, or an
            executor.
        **options: over those of the mapping; those that are None are left out.

    Raises:
        ConfigError: it is none of these, or an option is wrong.
    """
    given = {"name": executor} if isinstance(executor, str) else executor
    asked = {key: value for key, value in options.items() if value is not None}
    if not isinstance(given, Mapping):
        if isinstance(given, Executor) and not asked:
            return given
        raise ConfigError(
            f"executor must be one of {', '.join(EXECUTORS.names())}, the dotted path of a class, "
            f"or an executor without options; got {executor!r} {asked or ''}"
        )
    arguments = {key: value for key, value in {**given, **asked}.items() if value is not None}
    name = str(arguments.pop("name", None) or arguments.pop("_target_", "serial"))
    try:
        return EXECUTORS.find(name)(**arguments)
    except TypeError as error:
        raise ConfigError(f"executor {name!r}: wrong option: {error}") from error


__all__ = [
    "EXECUTORS",
    "Executor",
    "HasClock",
    "ProcessExecutor",
    "RayExecutor",
    "SerialExecutor",
    "create_executor",
]
