"""What a figure is worth: majority, surface, random labels, and the same network untrained."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import nn


def majority(labels: np.ndarray, train: np.ndarray) -> Any:
    """The label that most of the training items have."""
    names, counts = np.unique(labels[train], return_counts=True)
    return names[counts.argmax()]


def surface(texts: Any, size: int = 512) -> np.ndarray:
    """Which character n-grams (1 to 3, with marks at both ends) a text holds, ``[texts, size]``.

    Args:
        texts: ``[texts]``.
        size: number of slots the n-grams are hashed into.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(
        analyzer="char", ngram_range=(1, 3), n_features=size, binary=True, norm=None,
        alternate_sign=False, lowercase=False,
    )  # fmt: skip
    marked = [f"\x02{text[:200]}\x03" for text in texts]
    return np.asarray(vectorizer.transform(marked).toarray(), dtype=np.float32)


def control_labels(texts: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Labels of a control task: every distinct text gets one at random (Hewitt, Liang 2019).

    The labels are drawn as often as they occur. What a probe learns of them it has by heart.

    Args:
        texts: ``[items]``.
        labels: ``[items]``, for how often each occurs.
        seed: of the draw.
    """
    _, codes = np.unique(texts.astype(str), return_inverse=True)
    names, counts = np.unique(labels, return_counts=True)
    generator = np.random.default_rng(seed)
    drawn = generator.choice(len(names), codes.max() + 1, p=counts / counts.sum())
    return np.asarray(names[drawn[codes]])


def untrained(model: nn.Module, seed: int = 0) -> nn.Module:
    """The same network with weights drawn anew; the model itself is not changed.

    Hugging Face models are built from their config; in others every module with
    ``reset_parameters`` is reset.

    Args:
        model: the network.
        seed: of the draw; torch's own random state is as before afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = getattr(model, "config", None)
        if config is not None and hasattr(model, "init_weights"):
            fresh: nn.Module = type(model)(copy.deepcopy(config))
        else:
            fresh = copy.deepcopy(model)
            for module in fresh.modules():
                reset = getattr(module, "reset_parameters", None)
                if callable(reset):
                    reset()
    return fresh.train(model.training)
