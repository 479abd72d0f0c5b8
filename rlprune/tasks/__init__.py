"""Tasks: what a batch is, how a network is called with it, loss, metrics, and the rows compared."""

from __future__ import annotations

from rlprune.tasks.base import Rows, Task
from rlprune.tasks.classification import (
    Classification,
    ImageClassification,
    TextClassification,
)
from rlprune.tasks.language import LanguageModeling
from rlprune.tasks.metric import Metric
from rlprune.tasks.registry import TASKS, infer, resolve
from rlprune.tasks.regression import Regression
from rlprune.tasks.segmentation import Segmentation

__all__ = [
    "TASKS",
    "Classification",
    "ImageClassification",
    "LanguageModeling",
    "Metric",
    "Regression",
    "Rows",
    "Segmentation",
    "Task",
    "TextClassification",
    "infer",
    "resolve",
]
