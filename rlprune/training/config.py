"""Training recipes as frozen dataclasses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rlprune.errors import ConfigError
from rlprune.options import build, check_types

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("onecycle", "cosine", "constant")
KEEPS = ("best", "last")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Fields that every recipe shares.

    Raises:
        ConfigError: A field is out of its range.
    """

    epochs: int = 10
    """Passes over the training split; 0 trains nothing."""
    optimizer: str = "sgd"
    """``sgd`` with Nesterov momentum, or ``adamw``."""
    lr: float = 0.05
    """Highest learning rate of the schedule."""
    momentum: float = 0.9
    """Nesterov momentum of sgd; the first beta of adamw."""
    weight_decay: float = 5e-4
    """L2 penalty of sgd, decoupled decay of adamw."""
    decay_all: bool = False
    """Decay biases and normalisation parameters too; He et al. 2019 (bag of tricks) leave them."""
    schedule: str = "onecycle"
    """``onecycle``: linear up, linear down to zero (Smith and Topin 2018); ``cosine``: linear up,
    half a cosine down (Loshchilov and Hutter 2017); ``constant``: linear up, then level."""
    warmup: float = 0.2
    """Share of all steps on which the learning rate rises."""
    batch_size: int = 128
    """Samples per step, of all processes together."""
    accumulate: int = 1
    """Parts that a step's batch is computed in, one after the other, to need less memory; batch
    normalisation sees one part at a time."""
    checkpointing: bool = False
    """Compute activations of repeated blocks again instead of keeping them; slower, less memory."""
    compile: bool = False
    """Train through ``torch.compile``."""
    label_smoothing: float = 0.0
    """Probability spread over all classes in the targets; tasks without classes have none."""
    grad_clip: float | None = None
    """Largest gradient norm; None clips nothing."""
    autocast: bool | str = "auto"
    """bfloat16 autocast: ``auto`` where the processor or GPU is faster with it, or true, false."""
    channels_last: bool = True
    """Memory layout of convolutional networks; faster on processors and GPUs alike."""
    keep: str = "best"
    """``best``: the epoch, or the network before training, that is best on the held-out samples by
    the task's metric; ``last``: the last epoch."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_types(self, type(self).__name__)
        self._require("epochs", self.epochs >= 0, "0 or more")
        self._require("optimizer", self.optimizer in OPTIMIZERS, " or ".join(OPTIMIZERS))
        self._require("schedule", self.schedule in SCHEDULES, " or ".join(SCHEDULES))
        self._require("lr", math.isfinite(self.lr) and self.lr > 0, "a positive number")
        self._require("momentum", 0 <= self.momentum < 1, "in [0, 1)")
        self._require("weight_decay", self.weight_decay >= 0, "0 or more")
        self._require("warmup", 0 <= self.warmup < 1, "in [0, 1)")
        self._require("batch_size", self.batch_size >= 1, "1 or more")
        self._require("accumulate", 1 <= self.accumulate <= self.batch_size, "from 1 to batch_size")
        self._require("label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)")
        self._require("grad_clip", self.grad_clip is None or self.grad_clip > 0, "positive or null")
        self._require("keep", self.keep in KEEPS, " or ".join(KEEPS))
        self._require("autocast", self.autocast in (True, False, "auto"), "true, false or auto")

    def identity(self) -> dict[str, Any]:
        """What results depend on: how a step is computed counts where it is not the usual way."""
        found = asdict(self)
        usual = {"accumulate": 1, "checkpointing": False, "compile": False}
        return {k: v for k, v in found.items() if k not in usual or v != usual[k]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Any:
        """Build a recipe from a mapping.

        Args:
            fields: Field names and values.

        Raises:
            ConfigError: A name is unknown, or a value has another type.
        """
        return build(cls, fields, cls.__name__)

    def _require(self, field: str, holds: bool, valid: str) -> None:
        if not holds:
            raise ConfigError(
                f"{type(self).__name__}.{field}={getattr(self, field)!r}: must be {valid}"
            )


@dataclass(frozen=True)
class FineTune(Recipe):
    """Training of the pruned network, by default against the dense network's outputs."""

    distill: bool = True
    """Learn from the dense network's outputs (Hinton et al. 2015)."""
    distill_alpha: float = 0.7
    """Weight of the distillation loss; the labels' loss has ``1 - distill_alpha``."""
    temperature: float = 4.0
    """Temperature of the distillation loss."""
    keep: str = "last"
    """As in `Recipe`. A network given with its weights has often been trained on the samples that
    are held out here; then they favour whatever is nearest to it, and least trained."""

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        self._require("distill_alpha", 0 <= self.distill_alpha <= 1, "in [0, 1]")
        self._require("temperature", self.temperature > 0, "positive")


@dataclass(frozen=True)
class Pretrain(Recipe):
    """Training of the dense network from scratch."""

    epochs: int = 30
    """Passes over the training split; 0 trains nothing."""
    lr: float = 0.1
    """Highest learning rate of the schedule."""
    label_smoothing: float = 0.1
    """Probability spread over all classes in the targets; tasks without classes have none."""


@dataclass(frozen=True)
class Part:
    """Some epochs of a longer training.

    Attributes:
        before: Epochs trained before them.
        whole: Epochs of the whole training.
    """

    before: int
    whole: int
