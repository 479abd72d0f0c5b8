"""Whole experts of mixtures: those that the data are seldom sent to go, with their router rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.batches import as_batches
from rlprune.errors import ConfigError
from rlprune.integrations.hf.expression import follow
from rlprune.observe import Observation, Site, stream
from rlprune.observe.rows import rows
from rlprune.structure.twin import copied

log = logging.getLogger(__name__)

_TOP = ("top_k", "num_experts_per_tok")
_COUNTS = ("num_experts", "num_local_experts")
_GROUPED = ("n_group", "num_expert_group", "topk_group")


@dataclass(frozen=True)
class Mixture:
    """A layer that sends every token to some of its experts.

    Attributes:
        path: of the block.
        router: path of the module whose rows answer for the experts.
        experts: path of the experts: one module with 3-D parameters, or a list of modules.
        count: how many there are.
        chosen: how many a token is sent to.
    """

    path: str
    router: str
    experts: str
    count: int
    chosen: int


def mixtures(model: nn.Module) -> list[Mixture]:
    """The mixtures of a network, in order.

    Raises:
        ConfigError: one of them chooses among groups of experts, or not by a number of its own.
    """
    return list(_mixtures(model))


def drop_experts(
    model: Any, keep: int, data: Any, *, progress: bool | None = None
) -> tuple[Any, dict[str, Tensor]]:
    r"""Leave every mixture of a network some of its experts.

    Kept are those with the most weight in the answers to the data,
    :math:`\sum_t [e \in \mathrm{top}_k(t)]\, p_e(t)`, with the router's probabilities ``p``. The
    smaller network answers as the whole one does where the router's logits of the experts that are
    gone are :math:`-\infty`, exactly: a softmax over fewer experts is the softmax over all of them
    with those left out.

    Args:
        model: a network of transformers; not changed.
        keep: experts that every mixture keeps, at least as many as a token is sent to.
        data: calibration data (see :func:`rlprune.batches.as_batches`).
        progress: draw a bar; None draws one on a terminal.

    Returns:
        The smaller network, whose configuration counts its experts, and the numbers of the kept
        ones by mixture, ``[keep]`` each.

    Raises:
        ConfigError: there is no mixture, or ``keep`` is out of range.
        DataError: there is no calibration data.
    """
    found = mixtures(model)
    if not found:
        raise ConfigError(f"{type(model).__name__} has no mixture of experts")
    for mixture in found:
        if not mixture.chosen <= keep <= mixture.count:
            raise ConfigError(
                f"'{mixture.path}' has {mixture.count} experts and sends a token to "
                f"{mixture.chosen}: keep is {keep}, it must be in {mixture.chosen}..{mixture.count}"
            )
    weights = _weights(model, found, data)
    smaller = copied(model, {})
    kept: dict[str, Tensor] = {}
    for mixture in found:
        order = weights[mixture.path].argsort(descending=True, stable=True)
        kept[mixture.path] = order[:keep].sort().values
        _cut(smaller, mixture, kept[mixture.path])
    for module in smaller.modules():
        _count(module, {mixture.count for mixture in found}, keep)
    log.info("experts: %d of %s kept in %d mixtures", keep, found[0].count, len(found))
    return follow(smaller), kept


def _mixtures(model: nn.Module) -> Iterator[Mixture]:
    for path, block in model.named_modules():
        for name, experts in block.named_children():
            count = _experts(experts)
            router = count and next(
                (n for n, m in block.named_children() if n != name and _rows(m) == count), ""
            )
            if not router:
                continue
            inside = [block, experts, block.get_submodule(str(router))]
            if any(
                getattr(part, option, None) not in (None, 1)
                for part in inside
                for option in _GROUPED
            ):
                raise ConfigError(
                    f"'{path}' chooses among groups of experts, which is not followed"
                )
            numbers = [getattr(part, top, None) for part in inside for top in _TOP]
            chosen = next((n for n in numbers if type(n) is int), None)
            if chosen is None:
                raise ConfigError(f"'{path}' does not say how many experts a token is sent to")
            dot = f"{path}." if path else ""
            yield Mixture(path, f"{dot}{router}", f"{dot}{name}", count, chosen)


def _experts(module: nn.Module) -> int:
    """How many experts a module holds; 0 for none."""
    if isinstance(module, nn.ModuleList):
        shapes = {tuple((n, p.shape) for n, p in item.named_parameters()) for item in module}
        return len(module) if len(module) > 1 and len(shapes) == 1 and shapes != {()} else 0
    counts = [p.shape[0] for p in module.parameters(recurse=False) if p.ndim == 3]
    return counts[0] if len(counts) > 1 and len(set(counts)) == 1 else 0


def _rows(module: nn.Module) -> int:
    weight = module._parameters.get("weight")
    return int(weight.shape[0]) if weight is not None and weight.ndim == 2 else 0


def _weights(model: nn.Module, found: list[Mixture], data: Any) -> dict[str, Tensor]:
    """Weight of every expert in the answers to some data, [experts] by mixture."""
    sums = {mixture.path: torch.zeros(mixture.count, dtype=torch.float64) for mixture in found}

    def sink(mixture: Mixture) -> Any:
        router = model.get_submodule(mixture.router)
        weight, bias = router.get_parameter("weight"), getattr(router, "bias", None)

        def add(seen: Observation) -> None:
            logits = nn.functional.linear(rows(seen), weight, bias).double()
            best = logits.softmax(-1).topk(mixture.chosen, dim=-1)
            sums[mixture.path].index_add_(
                0, best.indices.flatten().cpu(), best.values.flatten().cpu()
            )

        return add

    batches = as_batches(data)
    stream(model, batches, {Site(m.router, "input"): sink(m) for m in found})
    return sums


def _cut(model: nn.Module, mixture: Mixture, kept: Tensor) -> None:
    experts, router = (model.get_submodule(p) for p in (mixture.experts, mixture.router))
    if isinstance(experts, nn.ModuleList):
        parent, _, name = mixture.experts.rpartition(".")
        left = nn.ModuleList(experts[at] for at in kept.tolist())
        setattr(model.get_submodule(parent), name, left)
        cut = [router]
    else:
        cut = [experts, router]
    for module in cut:
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None or not tensor.ndim or tensor.shape[0] != mixture.count:
                continue
            small = tensor.detach().index_select(0, kept.to(tensor.device))
            if isinstance(tensor, nn.Parameter):
                module._parameters[name] = nn.Parameter(small, tensor.requires_grad)
            else:
                module._buffers[name] = small
    if isinstance(router, nn.Linear):
        router.out_features = len(kept)


def _count(module: Any, before: set[int], after: int) -> None:
    for name in _COUNTS:
        if vars(module).get(name) in before:
            setattr(module, name, after)
