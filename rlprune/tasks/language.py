"""Language modelling: the next token at every position that is not padding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from rlprune.batches import Batch
from rlprune.errors import ConfigError, DataError
from rlprune.inputs import ExampleInputs
from rlprune.tasks.base import COUNT, LOSS, Rows, Sums
from rlprune.tasks.classification import Classes
from rlprune.tasks.metric import SHARE, Metric

_LARGEST = 700.0


class LanguageModeling(Classes):
    """Tokens predicted from those before them: answers ``[N, T, vocabulary]``, labels ``[N, T]``.

    Rows are the predicted tokens; left out are labels equal to ``ignore``, and positions that the
    inputs' ``attention_mask`` excludes.

    Args:
        shift: Whether the label of a position is the token at it, as Hugging Face has it, so that
            position t is held against label t + 1. False where labels are shifted already, for
            masked and for encoder-decoder models.
        ignore: Label of tokens that are not predicted.
    """

    name: ClassVar[str] = "language_modeling"
    metrics = (
        Metric("perplexity", "perplexity", higher_is_better=False),
        Metric("token_accuracy", "token accuracy", unit=SHARE),
    )
    recipe: ClassVar[Mapping[str, Any]] = {
        "optimizer": "adamw", "lr": 5e-4, "weight_decay": 0.01, "batch_size": 16, "grad_clip": 1.0,
        "temperature": 1.0,
    }  # fmt: skip

    def __init__(self, shift: bool = True, ignore: int = -100) -> None:
        if ignore >= 0:
            raise ConfigError(
                f"language_modeling: ignore={ignore} could be a token; it must be < 0"
            )
        self.shift, self.ignore = shift, ignore

    def unpack(self, batch: Any) -> Batch:
        """As every task; texts without labels are their own labels, padding excluded."""
        inputs, labels = super().unpack(batch)
        if labels is not None:
            return inputs, labels
        tokens = inputs.get("input_ids") if isinstance(inputs, Mapping) else inputs
        if isinstance(tokens, (list, tuple)) and tokens:
            tokens = tokens[0]
        if not isinstance(tokens, Tensor) or tokens.is_floating_point() or tokens.ndim != 2:
            raise DataError(
                "language_modeling: a batch without labels needs tokens [N, T] to predict, as the "
                "input or under 'input_ids'"
            )
        labels = tokens.long().clone()
        mask = mask_of(inputs)
        return inputs, labels if mask is None else labels.masked_fill(~mask, self.ignore)

    def rows(
        self, answer: Tensor, labels: Tensor | None = None, inputs: ExampleInputs | None = None
    ) -> Rows:
        """One row per predicted token."""
        if answer.ndim != 3:
            raise DataError(
                f"{self.name}: the network's answer has shape {tuple(answer.shape)}; it must be "
                "[N, T, vocabulary], as a tensor or under 'logits'"
            )
        counted = mask_of(inputs)
        if counted is not None and counted.shape != answer.shape[:2]:
            counted = None  # of an encoder, whose length is not the decoder's
        if labels is not None:
            if labels.shape != answer.shape[:2]:
                raise DataError(
                    f"{self.name}: labels {tuple(labels.shape)} do not fit an answer of shape "
                    f"{tuple(answer.shape)}; there must be one label per position"
                )
            known = labels != self.ignore
            counted = known if counted is None else known & counted
        if self.shift:
            answer = answer[:, :-1]
            labels = None if labels is None else labels[:, 1:]
            counted = None if counted is None else counted[:, 1:]
        if counted is None:
            table = answer.flatten(0, 1).float()
            return Rows(table, None if labels is None else labels.flatten())
        return Rows(answer[counted].float(), None if labels is None else labels[counted])

    def measures(self, sums: Sums) -> dict[str, float]:
        """``exp`` of the mean cross entropy per token, and the share of tokens ranked first."""
        count = sums[COUNT].item()
        loss = sums[LOSS].item() / count
        return {
            "perplexity": math.exp(min(loss, _LARGEST)),
            "token_accuracy": sums["right"].item() / count,
            LOSS: loss,
        }

    def outputs(self, labels: Tensor) -> int | None:
        """Unknown: a text need not hold every token of the vocabulary."""
        return None

    def check(
        self, labels: Tensor, outputs: int | None, where: str, names: tuple[str, ...] | None = None
    ) -> None:
        """Labels are tokens ``[N, T]`` of the vocabulary, or ``ignore``."""
        if labels.ndim != 2:
            raise DataError(
                f"{where}: labels have shape {tuple(labels.shape)}; {self.name} needs one token "
                "per position, [N, T]"
            )
        self.check_classes(labels, outputs, where, labels == self.ignore)


def mask_of(inputs: ExampleInputs | None) -> Tensor | None:
    """Which positions ``[N, T]`` are not padding, by the inputs' ``attention_mask``."""
    found = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    return found.bool() if isinstance(found, Tensor) and found.ndim == 2 else None
