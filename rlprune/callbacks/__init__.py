"""Callbacks: what a run tells while it goes on, to loggers and to whoever wants to stop it.

Subclass :class:`Callback`, and give an object to ``rlprune.prune(callbacks=[...])`` or its dotted
path on the command line, as in ``'callbacks=[rlprune.callbacks.WandbLogger]'`` or with options
``'callbacks=[{_target_: rlprune.callbacks.WandbLogger, project: pruning}]'``. No result depends on
a callback that does not stop the search.
"""

from __future__ import annotations

from rlprune.callbacks.base import CALLBACKS, Callback, resolve
from rlprune.callbacks.logs import JsonLogger
from rlprune.callbacks.wandb import WandbLogger

__all__ = ["CALLBACKS", "Callback", "JsonLogger", "WandbLogger", "resolve"]
