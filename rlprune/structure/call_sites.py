"""Where in a module's own code an op with sizes among its arguments is called."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType

import torch
from torch import nn

SIZED = frozenset("view _unsafe_view reshape expand split split_with_sizes".split())
"""Ops that are told sizes."""
_INLINE = frozenset(["<genexpr>", "<listcomp>", "<setcomp>", "<dictcomp>", "<lambda>"])
"""Frames of code that stands inside a method's."""
_FOREIGN = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))


@dataclass(frozen=True)
class CallSite:
    """A call in a method of the running module.

    Attributes:
        module: path of the module.
        code: of the method.
        end: line and column where the call ends; the column is -1 where Python does not tell it.
    """

    module: str
    code: CodeType
    end: tuple[int, int]


def calling_site(path: str, module: nn.Module) -> CallSite | None:
    """The call that is running, if it stands in a method of the module itself."""
    frame = _own(sys._getframe(1))
    if frame is None:
        return None
    end = _end(frame)
    while frame is not None and frame.f_code.co_name in _INLINE:
        frame = _own(frame.f_back)
    if frame is None or not frame.f_code.co_varnames:
        return None
    if frame.f_locals.get(frame.f_code.co_varnames[0]) is not module:
        return None
    return CallSite(path, frame.f_code, end)


def _own(frame: FrameType | None) -> FrameType | None:
    """The innermost frame that runs neither PyTorch's code nor rlprune's."""
    while frame is not None and frame.f_code.co_filename.startswith(_FOREIGN):
        frame = frame.f_back
    return frame


def _end(frame: FrameType) -> tuple[int, int]:
    positions = getattr(frame.f_code, "co_positions", None)
    if positions is None:
        return frame.f_lineno, -1
    _, line, _, column = list(positions())[frame.f_lasti // 2]
    return line or frame.f_lineno, -1 if column is None else column
