"""Concepts as budgets: what a pruned language model may lose on the tokens of a concept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlprune.analysis.editing import token_losses
from rlprune.analysis.memories import concept_rows
from rlprune.analysis.tokens import Corpus
from rlprune.analysis.windows import unpadded
from rlprune.batches import Batch
from rlprune.budgets import Budget
from rlprune.errors import ConfigError
from rlprune.importance import scores
from rlprune.structure import Groups
from rlprune.tasks import LanguageModeling

_IGNORED = -100


class ConceptLoss:
    """Mean negative log-likelihood of the tokens of a concept, in nats: a cost for a budget.

    Args:
        batches: of a corpus; mappings with ``input_ids`` and ``attention_mask``.
        of_concept: which rows are of the concept, ``[rows]`` bool.

    Raises:
        ConfigError: No row that can be predicted is of the concept.
    """

    def __init__(self, batches: list[Batch], of_concept: np.ndarray) -> None:
        self._batches, self._of_concept = batches, torch.from_numpy(np.asarray(of_concept))
        if not bool(self._of_concept.any()):
            raise ConfigError("no token is of the concept")

    def __call__(self, model: nn.Module, example_inputs: Any = None) -> float:
        """Loss of a network, in nats per token."""
        losses = token_losses(model, self._batches)
        return float(losses[self._of_concept & ~torch.isnan(losses)].mean())

    def identity(self) -> list[Any]:
        """The batches and the rows."""
        return [[inputs for inputs, _ in self._batches], self._of_concept]


def labelled(corpus: Corpus, rows: np.ndarray | None = None) -> list[Batch]:
    """A corpus's batches with the tokens themselves as labels, of some rows alone.

    Args:
        corpus: the programs.
        rows: which rows are to be predicted, ``[rows]`` bool; None takes all.
    """
    found: list[Batch] = []
    start = 0
    for inputs, _ in corpus.batches:
        assert isinstance(inputs, Mapping)
        mask = inputs["attention_mask"].bool()
        own = torch.full(mask.shape, _IGNORED)
        count = int(mask.sum())
        ids = torch.from_numpy(corpus.ids[start : start + count])
        if rows is not None:
            ids = torch.where(torch.from_numpy(rows[start : start + count]), ids, _IGNORED)
        own[mask] = ids
        if bool((own[:, 1:] != _IGNORED).any()):
            found.append((inputs, own))
        start += count
    return found


def protective(
    groups: Groups, corpus: Corpus, concepts: Sequence[str], criterion: Any = "taylor"
) -> dict[str, Tensor]:
    """Scores by which units go last that matter to some concept, whatever they do for the others.

    A unit's score is the largest of those it has on all tokens and on every concept's, each as a
    share of its group's mean.

    Args:
        groups: of the language model.
        corpus: programs that scores are taken on; not those of a final test.
        concepts: classes, roles, or ``/patterns/``.
        criterion: see :func:`rlprune.importance.scores`.

    Returns:
        Scores ``[width]`` by group, for ``importance=``.
    """
    task = LanguageModeling()
    every = [None, *(concept_rows(corpus, concept) for concept in concepts)]
    found: dict[str, Tensor] = {}
    for rows in every:
        own = scores(groups, criterion, data=labelled(corpus, rows), task=task)
        for name, score in own.items():
            share = score / score.mean().clamp_min(1e-30)
            found[name] = torch.maximum(found[name], share) if name in found else share
    return found


def protect(
    corpus: Corpus, limits: Mapping[str, float | str], most: int | None = None
) -> dict[str, Budget]:
    """Budgets that keep what a language model knows of some concepts.

    They are given to :func:`rlprune.prune` beside the others::

        kept = protect(corpus, {"NUMBER": "110%"})
        rlprune.prune(model, inputs, budgets={"params": "50%", **kept})

    Args:
        corpus: programs the loss is measured on; not those of a final test.
        limits: by concept (a class, a role, or ``/pattern/``) the most its loss may be, in nats per
            token or, as ``"110%"``, of the dense network's.
        most: use only so many batches; None uses all.

    Returns:
        Budgets by name, such as ``"loss of NUMBER"``.

    Raises:
        ConfigError: A concept does not occur.
    """
    batches = corpus.batches[:most]
    count = sum(map(len, unpadded(batches)))
    found = {}
    for concept, limit in limits.items():
        rows = concept_rows(corpus, concept)[:count]
        name = f"loss of {concept}"
        loss = ConceptLoss(batches, rows)
        found[name] = Budget(fn=loss, limit=limit, name=name, rising=True)
    return found
