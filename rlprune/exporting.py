"""Networks as torch.export programs and as ONNX files."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlprune.modes import evaluating


def arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs as positional and as keyword arguments."""
    if isinstance(inputs, Mapping) and all(isinstance(key, str) for key in inputs):
        return (), dict(inputs)
    if isinstance(inputs, (list, tuple)):
        return tuple(inputs), {}
    return (inputs,), {}


def save_onnx(program: Any, path: Path) -> None:
    """Write a torch.export program as ONNX."""
    written = torch.onnx.export(program, dynamo=True, verbose=False)
    assert written is not None
    written.save(str(path), external_data=False)


@contextlib.contextmanager
def ready(network: nn.Module) -> Iterator[None]:
    """Let a network be exported: in eval mode, without gradients, caches and messages."""
    with _quiet(), _without_cache(network), evaluating(network), torch.no_grad():
        yield


@contextlib.contextmanager
def _without_cache(network: nn.Module) -> Iterator[None]:
    """Let a network of transformers return tensors alone: exporters know no caches."""
    config = getattr(network, "config", None)
    if not getattr(config, "use_cache", False):
        yield
        return
    assert config is not None
    config.use_cache = False
    try:
        yield
    finally:
        config.use_cache = True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep exporters from writing their progress over ours."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
