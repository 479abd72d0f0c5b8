"""Attention modules that can hold fewer heads than their width suggests.

Stock attention classes compute the head size as ``embed_dim // num_heads``, so they cannot express
"the same heads, fewer of them". Each class here is a subclass of a stock class with the same
parameters, state-dict names and arithmetic, whose forward takes the head count from its tensors. A
module is turned into its adaptive form by assigning ``__class__``: attributes, hooks and parameters
stay where they are, and ``isinstance`` of the stock class still holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from torch import nn

_ADAPTIVE = {
    "torch.nn.modules.activation.MultiheadAttention": (
        "rlprune.attention.multihead",
        "AdaptiveMultiheadAttention",
    ),
    "torchvision.models.swin_transformer.ShiftedWindowAttention": (
        "rlprune.attention.swin",
        "AdaptiveShiftedWindowAttention",
    ),
    "torchvision.models.swin_transformer.ShiftedWindowAttentionV2": (
        "rlprune.attention.swin",
        "AdaptiveShiftedWindowAttentionV2",
    ),
    "torchvision.models.maxvit.RelativePositionalMultiHeadAttention": (
        "rlprune.attention.maxvit",
        "AdaptiveRelativePositionalMultiHeadAttention",
    ),
}
_MARK = "_rlprune_stock_class"


_DERIVED: dict[type[nn.Module], type[nn.Module]] = {}


def adaptive_class(kind: type[nn.Module]) -> type[nn.Module] | None:
    """The adaptive form of an attention class, None when it has none (or already is one).

    A user's subclass of a stock class gets a class that derives from both, so that its own forward
    still runs and its ``super().forward`` reaches the adaptive one.
    """
    if hasattr(kind, _MARK):
        return None
    for base in kind.__mro__:
        home = _ADAPTIVE.get(f"{base.__module__}.{base.__qualname__}")
        if home is not None:
            adaptive: type[nn.Module] = getattr(import_module(home[0]), home[1])
            if base is kind:
                return adaptive
            if kind not in _DERIVED:
                name = f"Adaptive{kind.__name__}"
                _DERIVED[kind] = type(name, (kind, adaptive), {_MARK: kind})
            return _DERIVED[kind]
    return None


def stock_class(kind: type[nn.Module]) -> type[nn.Module]:
    """The class an adaptive class stands in for; any other class is its own."""
    stock: type[nn.Module] = getattr(kind, _MARK, kind)
    return stock


def adapt(module: nn.Module, adaptive: bool) -> None:
    """Give one module its adaptive class, or its stock class back."""
    kind = adaptive_class(type(module)) if adaptive else stock_class(type(module))
    if kind is not None and kind is not type(module):
        module.__class__ = kind


@contextmanager
def adapted(model: nn.Module) -> Iterator[None]:
    """Run a network with every attention module in its adaptive form, then put the classes back.

    Tracing goes through here, so that labels are found in the forward a smaller network will run.
    """
    changed = [(m, type(m)) for m in model.modules() if adaptive_class(type(m)) is not None]
    for module, _ in changed:
        adapt(module, True)
    try:
        yield
    finally:
        for module, kind in changed:
            module.__class__ = kind
