"""The network inside wrappers, and a plain word about what cannot be cut."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from rlprune.errors import StructureError

_QUANTISED = ("torch.ao.nn.quantized", "torch.nn.quantized", "bitsandbytes", "torchao", "quanto")


def unwrapped(model: Any) -> nn.Module:
    """Take wrappers off a network: data parallelism, ``torch.compile``, PEFT adapters.

    Adapters are merged into a copy, so the network handed in is not changed; all others come back
    as they are.

    Raises:
        StructureError: it is no module, is compiled by ``torch.jit``, or is quantised; says what to
            give instead.
    """
    while True:
        inner = _inner(model)
        if inner is None:
            break
        model = inner
    if not isinstance(model, nn.Module):
        raise StructureError(
            f"the model is a {type(model).__name__}, not a torch.nn.Module: give the module whose "
            "forward it calls"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise StructureError(
            f"{type(model).__name__} is compiled by torch.jit.script or trace and cannot be cut: "
            "give the network it was made from"
        )
    for name, module in model.named_modules():
        if type(module).__module__.startswith(_QUANTISED):
            raise StructureError(
                f"'{name or type(model).__name__}' is quantised ({type(module).__name__}) and "
                "cannot be cut: prune the floating-point network, then quantise the smaller one"
            )
    return model


def _inner(model: Any) -> Any:
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return model.module
    if isinstance(model, nn.Module) and "_orig_mod" in model._modules:
        return model._orig_mod
    if type(model).__module__.startswith("peft.") and hasattr(model, "merge_and_unload"):
        return copy.deepcopy(model).merge_and_unload()
    return None
