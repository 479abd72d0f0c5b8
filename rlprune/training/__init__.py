"""Training of dense and pruned networks, resumable to the bit."""

from __future__ import annotations

from rlprune.training.config import FineTune, Part, Pretrain
from rlprune.training.evaluate import Measured, evaluate
from rlprune.training.loop import TrainResult, finetune, pretrain
from rlprune.training.precision import laid_out, use_bfloat16
from rlprune.training.record import CsvHistory, EpochRecord, TensorBoardHistory
from rlprune.training.team import team

__all__ = [
    "CsvHistory",
    "EpochRecord",
    "FineTune",
    "Measured",
    "Part",
    "Pretrain",
    "TensorBoardHistory",
    "TrainResult",
    "evaluate",
    "finetune",
    "laid_out",
    "pretrain",
    "team",
    "use_bfloat16",
]
