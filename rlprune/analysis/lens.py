"""What every layer would answer: its residual stream through the network's own head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.analysis.parts import layers
from rlprune.analysis.windows import even, unpadded
from rlprune.batches import answer
from rlprune.errors import StructureError
from rlprune.modes import evaluating
from rlprune.observe import Observation, Recorder

CONTEXTS = (2, 8, 32, 128)
"""Numbers of tokens a position is answered from."""


@dataclass(frozen=True)
class Agreement:
    """How often each layer's own answer is the final one.

    Attributes:
        layers: the blocks' paths.
        share: by layer, over all tokens.
        spearman: rank correlation of depth and share.
        contexts: numbers of tokens seen.
        by_context: of every context the share by layer, over the same positions.
        settled: of every context the mean depth (layers, from 1) from which the answer stays.
        positions: how many positions were asked with every context.
    """

    layers: tuple[str, ...]
    share: tuple[float, ...]
    spearman: float
    contexts: tuple[int, ...]
    by_context: tuple[tuple[float, ...], ...]
    settled: tuple[float, ...]
    positions: int


def layer_agreement(
    model: nn.Module,
    batches: Any,
    *,
    contexts: Sequence[int] = CONTEXTS,
    tokens: int = 4000,
    positions: int = 200,
    seed: int = 0,
) -> Agreement:
    """How often the output of each block, unembedded, has the final answer, by depth and context.

    Args:
        model: a language model whose logits are its head applied to the last block's output.
        batches: mappings with ``input_ids`` and ``attention_mask``.
        contexts: the same positions are answered from their last so many tokens.
        tokens: how many are looked at for the share by depth.
        positions: how many are asked with every context.
        seed: of their draw.

    Raises:
        DataError: A batch has no ``input_ids``.
        StructureError: The head does not reproduce the network's logits.
    """
    from scipy.stats import spearmanr

    windows = unpadded(batches)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(windows))
    chosen, total = [], 0
    for number in order:
        if total >= tokens:
            break
        chosen.append(windows[number])
        total += len(windows[number])
    head = _head(model, chosen[0])
    hits = torch.cat([same for same in _same(model, chosen, head, last=False)])
    share = hits.float().mean(0).tolist()
    longest = max(contexts)
    ends = [(n, e) for n, w in enumerate(windows) for e in range(longest, len(w) + 1, 7)]
    picked = [ends[i] for i in generator.permutation(len(ends))[:positions]]
    by_context, settled = [], []
    for context in contexts if picked else ():
        parts = [windows[n][e - context : e] for n, e in picked]
        same = torch.cat([found for found in _same(model, parts, head, last=True)])
        by_context.append(tuple(same.float().mean(0).tolist()))
        stays = same.flip(1).long().cumprod(1).sum(1)
        settled.append(float((same.shape[1] + 1 - stays).clamp(max=same.shape[1]).float().mean()))
    rank = float(spearmanr(range(len(share)), share).statistic) if len(share) > 1 else float("nan")
    return Agreement(
        tuple(layer.path for layer in layers(model)), tuple(share), rank,
        tuple(contexts) if picked else (), tuple(by_context), tuple(settled), len(picked),
    )  # fmt: skip


def _same(
    model: nn.Module, windows: list[np.ndarray], head: Callable[[Tensor], Tensor], last: bool
) -> Iterator[Tensor]:
    """Whether every layer's answer is the final one, ``[tokens, layers]`` by batch."""
    sites = [layer.path for layer in layers(model)]
    held: dict[str, Tensor] = {}

    def sink(seen: Observation) -> None:
        value = seen.value
        held[seen.site.path] = (value[:, -1:] if last else value).clone()

    with evaluating(model), torch.no_grad(), Recorder(model, dict.fromkeys(sites, sink)):
        for inputs, _ in even(windows):
            logits = answer(model, inputs)
            final = (logits[:, -1:] if last else logits).argmax(-1)
            found = [head(held[site]).argmax(-1) == final for site in sites]
            yield torch.stack(found, -1).flatten(0, 1)


def _head(model: nn.Module, window: np.ndarray) -> Callable[[Tensor], Tensor]:
    """The part of the network behind its last block, checked against its logits."""
    blocks = layers(model)
    last = blocks[-1].path
    outside = [
        module
        for name, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
        and not any(name.startswith(layer.path + ".") for layer in blocks)
    ]
    get = getattr(model, "get_output_embeddings", lambda: None)
    heads = [part for part in (get(), getattr(model, "lm_head", None), getattr(model, "cls", None))
             if isinstance(part, nn.Module)]  # fmt: skip
    held: list[Tensor] = []
    with evaluating(model), torch.no_grad():
        with Recorder(model, {last: lambda seen: held.append(seen.value.clone())}):
            wanted = answer(model, {"input_ids": torch.from_numpy(window)[None]})
        for head in heads:
            for norm in (*reversed(outside), None):
                chain = nn.Sequential(*([] if norm is None else [norm]), head)
                try:
                    found = chain(held[0])
                except (RuntimeError, TypeError):
                    continue
                if found.shape == wanted.shape and torch.allclose(found, wanted, 1e-4, 1e-4):
                    return chain
    raise StructureError(
        f"the logits of {type(model).__name__} are not its head applied to the output of {last}; "
        "layers cannot be compared by their answers"
    )
