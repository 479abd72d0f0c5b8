"""Feed-forward layers as memories: which concept triggers a key, what its value predicts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.analysis.parts import matrix
from rlprune.analysis.tokens import Corpus
from rlprune.analysis.windows import TopWindows
from rlprune.errors import ConfigError, StructureError


@dataclass(frozen=True)
class ConceptMap:
    """Where the keys of a concept sit.

    Attributes:
        name: the concept.
        base: share of all tokens that are of the concept.
        holders: by layer the units that are triggered by it.
        lift: by layer the mean share of a unit's top windows that are of the concept, over base.
    """

    name: str
    base: float
    holders: tuple[tuple[int, ...], ...]
    lift: tuple[float, ...]


def concept_rows(corpus: Corpus, concept: str) -> np.ndarray:
    """Which rows of a corpus are of a concept, ``[rows]`` bool.

    Args:
        corpus: the programs.
        concept: a class or role of tokens; or ``/pattern/``, a regular expression that is searched
            in the 40 characters that end with the row.

    Raises:
        ConfigError: The pattern is malformed, or no row is of the concept.
    """
    if len(concept) > 2 and concept[0] == concept[-1] == "/":
        try:
            pattern = re.compile(concept[1:-1] + r"\Z")
        except re.error as error:
            raise ConfigError(f"{concept} is no regular expression: {error}") from error
        texts = ("".join(corpus.window(row, 40, 0)[:2]) for row in range(len(corpus.ids)))
        found = np.array([bool(pattern.search(text)) for text in texts])
    else:
        found = np.zeros(len(corpus.ids), dtype=bool)
        for row, (source, label) in enumerate(zip(corpus.source, corpus.label, strict=True)):
            found[row] = label >= 0 and concept in corpus.labels[source][label][2:]
    if not found.any():
        raise ConfigError(f"no token of the programs is of the concept {concept!r}")
    return found


def contexts(corpus: Corpus, tokens: int = 8) -> np.ndarray:
    """A number for every row, the same where its own and the tokens before it are, ``[rows]``.

    Licences and headers stand in many programs; their copies are one witness, not many.

    Args:
        corpus: the programs.
        tokens: how many sub-words are compared, the row's own included.
    """
    padded = np.concatenate([np.full(tokens - 1, -1), corpus.ids])
    windows = np.lib.stride_tricks.sliding_window_view(padded, tokens)
    return np.asarray(np.unique(windows, axis=0, return_inverse=True)[1]).reshape(-1)


def concept_map(
    top: TopWindows, name: str, of_concept: np.ndarray, context: np.ndarray | None = None
) -> ConceptMap:
    """The units whose top windows are of a concept more often than chance allows.

    A unit holds it if at least half of its top windows are of it and a binomial test against the
    share among all tokens, corrected for the number of units, is below .01.

    Args:
        top: of all layers.
        name: for people.
        of_concept: ``[rows]`` bool, from :func:`concept_rows`.
        context: from :func:`contexts`; windows of one number count once. None counts all.
    """
    from scipy.stats import binom

    code = np.arange(len(of_concept)) if context is None else context
    first = np.unique(code, return_index=True)[1]
    base = float(of_concept[first].mean())
    units = sum(at.shape[-2] * (at.ndim - 1) for at in top.rows)
    most = top.rows[0].shape[-1]
    needed = np.maximum(
        binom.isf(0.01 / units, np.arange(most + 1), base) + 1, (np.arange(most + 1) + 1) // 2
    )
    holders, lift = [], []
    for at in top.rows:
        planes = at.numpy().reshape(-1, at.shape[-2], most)
        share, holds = np.zeros(planes.shape[:2]), np.zeros(planes.shape[:2], dtype=bool)
        for side, plane in enumerate(planes):
            for unit, rows in enumerate(plane):
                kept = rows[np.unique(code[rows], return_index=True)[1]]
                hits = int(of_concept[kept].sum())
                share[side, unit] = hits / len(kept)
                holds[side, unit] = hits >= needed[len(kept)]
        holders.append(tuple(int(unit) for unit in np.flatnonzero(holds.any(0))))
        lift.append(float(share.max(0).mean() / max(base, 1e-12)))
    return ConceptMap(name, base, tuple(holders), tuple(lift))


def overlap(one: ConceptMap, other: ConceptMap, top: TopWindows) -> tuple[int, float]:
    """Units that hold both concepts, and how many would by chance, layer by layer."""
    shared, chance = 0, 0.0
    for a, b, at in zip(one.holders, other.holders, top.rows, strict=True):
        shared += len(set(a) & set(b))
        chance += len(a) * len(b) / at.shape[-2]
    return shared, chance


def unembedding(model: nn.Module) -> Tensor:
    """The matrix that turns the residual stream into logits, ``[vocabulary, width]``.

    Raises:
        StructureError: The network has no output embedding.
    """
    get = getattr(model, "get_output_embeddings", None)
    head = get() if callable(get) else None
    if head is None or getattr(head, "weight", None) is None:
        raise StructureError(f"{type(model).__name__} has no output embedding to read values with")
    weight: Tensor = head.weight.detach()
    return weight


def predictions(model: nn.Module, down: str, k: int = 1) -> tuple[Tensor, Tensor]:
    """The tokens that every value vector of a layer votes for most.

    Args:
        model: a language model.
        down: path of the layer's second projection.
        k: how many tokens.

    Returns:
        Token ids and their logits, ``[units, k]`` each.
    """
    values, head = matrix(model, down).float(), unembedding(model).float()
    sizes, ids = [], []
    for part in values.T.split(256):
        size, token = (part @ head.T).topk(k, 1)
        sizes.append(size)
        ids.append(token)
    return torch.cat(ids), torch.cat(sizes)


def agreement(model: nn.Module, top: TopWindows, corpus: Corpus) -> list[tuple[float, float]]:
    """By layer: how often a value votes for the token that follows its key's first window.

    Args:
        model: the network.
        top: of the corpus.
        corpus: the programs.

    Returns:
        The share of units, and the share if windows are exchanged among the units.
    """
    following = np.append(corpus.ids[1:], -1)
    found = []
    for layer, at in zip(top.layers, top.rows, strict=True):
        first = at[..., 0].numpy()
        wanted = following[first if first.ndim == 1 else first[0]]
        voted = predictions(model, layer.down)[0][:, 0].numpy()
        drawn = np.random.default_rng(0).permutation(len(wanted))
        found.append((float((voted == wanted).mean()), float((voted == wanted[drawn]).mean())))
    return found


def words_of(tokenizer: Any, ids: Any) -> list[str]:
    """Tokens as text, blanks made visible."""
    return [tokenizer.decode([int(token)]).replace("\n", "\\n") for token in ids]
