"""Everything that one run works with, checked before anything starts."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.budgets import Budget
from rlprune.compensation import is_sequential, methods, reconstructs
from rlprune.data import Data
from rlprune.errors import ConfigError
from rlprune.identity import describe
from rlprune.inputs import map_tensors, to_device
from rlprune.plan import Plan
from rlprune.problem import EvaluatorConfig
from rlprune.run.folder import RunFolder
from rlprune.structure import Groups, discover
from rlprune.training import FineTune

log = logging.getLogger(__name__)

EXPORTS = ("onnx", "torch_export")


@dataclass
class Job:
    """One run: the dense network, the data, what is asked for, and where it is kept.

    Attributes:
        dense: A copy of the user's network, in eval mode, on the run's device.
        example_inputs: What it is called with, on the same device.
        data: Training, held-out and test samples, or None.
        score: The user's score, or None.
        budgets: What the result has to meet.
        agent: Name, mapping, configuration or instance of the search agent.
        evaluations: Unique candidate evaluations.
        importance: Criterion that orders the units of a group.
        compensation: How surviving weights make up for the removed ones.
        evaluator: How candidates are scored.
        finetune: The recipe, or None.
        structure: Options of the structure discovery.
        latency: Options of the report's latency measurement.
        exports: Which exports to write.
        seed: Decides every random choice.
        folder: The run folder.
        factory: How to build the dense network again, or None.
        progress: Whether to draw bars; None draws them on a terminal.
        auto_compensation: Whether ``compensation`` is what ``auto`` stands for.
    """

    dense: nn.Module
    example_inputs: Any
    data: Data | None
    score: Callable[[nn.Module], float] | None
    budgets: tuple[Budget, ...]
    agent: Any
    evaluations: int
    importance: Any
    compensation: Any
    evaluator: EvaluatorConfig
    finetune: FineTune | None
    structure: dict[str, Any]
    latency: dict[str, Any]
    exports: tuple[str, ...]
    seed: int
    folder: RunFolder
    factory: dict[str, Any] | None
    progress: bool | None = None
    auto_compensation: bool = False
    settings: dict[str, dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        """Check what can be checked now, and note what each stage depends on."""
        if self.data is None and self.score is None:
            raise ConfigError(
                "give data=rlprune.Data(train=..., test=...), or score=a function of the network "
                "that returns a number, higher is better"
            )
        if self.finetune is not None and self.data is None:
            raise ConfigError("fine-tuning needs data=; give it, or finetune=None")
        if self.evaluations < 1:
            raise ConfigError(f"evaluations must be at least 1, got {self.evaluations}")
        unknown = [name for name in self.exports if name not in EXPORTS]
        if unknown:
            raise ConfigError(f"export {unknown[0]!r} is unknown; choose of {', '.join(EXPORTS)}")
        data = {} if self.data is None else describe(self.data)
        self.settings = {"search": self._search_settings(data)}
        tuned = self.finetune is not None
        self.settings["finetune"] = {
            "recipe": describe(self.finetune),
            "seed": self.seed,
            "augmentation": data.get("augmentation") if tuned else None,
        }
        self.settings["export"] = {"formats": list(self.exports)}
        self.settings["report"] = {"latency": describe(self.latency), "test": data.get("test")}

    @cached_property
    def groups(self) -> Groups:
        """The groups of the dense network."""
        return discover(self.dense, self.example_inputs, **self.structure)

    @property
    def device(self) -> torch.device:
        """Where the dense network is."""
        return device_of(self.dense)

    @cached_property
    def calibration(self) -> tuple[Tensor, Tensor] | None:
        """Calibration samples ``(x, y)``, or None without data."""
        if self.data is None:
            return None
        x, y = self.data.calibration(self.evaluator.calibration_images)
        return x.to(self.device), y.to(self.device)

    def compacted(self, plan: Plan) -> nn.Module:
        """The compacted, compensated network of a plan, in eval mode, before fine-tuning."""
        from rlprune.compaction import build, verify
        from rlprune.compensation import compensate

        small = build(self.groups, plan)
        verify(self.groups, small, plan)
        if self.compensation is not None:
            compensate(self.groups, plan, small, self.compensation, self.calibration)
        return small.eval()

    def skeleton(self, plan: Plan, tensors: Mapping[str, Tensor]) -> nn.Module:
        """The compacted network of a plan filled with stored weights."""
        from rlprune.compaction import build

        small = build(self.groups, plan)
        small.load_state_dict(dict(tensors))
        return small.eval()

    def _search_settings(self, data: dict[str, Any]) -> dict[str, Any]:
        """What the result of the search depends on (law 8)."""
        settings = {
            "network": self.dense,
            "inputs": map_tensors(self.example_inputs, _formal),
            "data": data.get("samples"),
            "score": self.score,
            "budgets": {budget.name: budget for budget in self.budgets},
            "agent": self._agent(),
            "evaluations": self.evaluations,
            "importance": self.importance,
            "compensation": methods(self._asked_compensation()),
            "evaluator": {
                **asdict(self.evaluator),
                "compensation": methods(self.evaluator.compensation),
            },
            "structure": self.structure,
            "seed": self.seed,
        }
        return {name: describe(setting) for name, setting in settings.items()}

    def _agent(self) -> Any:
        """The agent with every option, whatever form it was given in; None for benchmarks."""
        from rlprune.search.agent import resolve_agent

        return None if self.agent is None else resolve_agent(self.agent)

    def _asked_compensation(self) -> Any:
        """Compensation as recorded: what ``auto`` adds for want of fine-tuning is left out.

        So a run without fine-tuning may be fine-tuned later.
        """
        if not self.auto_compensation or self.compensation is None:
            return self.compensation
        return [item for item in self.compensation if item != "sequential"]


def _formal(tensor: Tensor) -> Tensor:
    """Type and shape alone: the values of example inputs are any."""
    return tensor.to("meta")


def device_of(model: nn.Module) -> torch.device:
    """Device of the first parameter or buffer; the CPU when there is none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def resolve_device(device: str | torch.device | None, model: nn.Module) -> torch.device:
    """The device of a run: ``auto`` takes a GPU if there is one, None stays where the model is.

    Raises:
        ConfigError: The device is malformed or not there.
    """
    if device is None:
        return device_of(model)
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {str(device)!r} cannot be used here: {error}") from error
    return found


def place(
    model: nn.Module, example_inputs: Any, device: str | torch.device | None
) -> tuple[nn.Module, Any]:
    """A copy of the network in eval mode, and the example inputs, on the run's device."""
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    target = resolve_device(device, model)
    return copy.deepcopy(model).eval().to(target), to_device(example_inputs, target)


def default_importance(importance: Any, compensation: Any) -> Any:
    """Fill in what ``auto`` stands for.

    Args:
        importance: As the user gave it; ``auto`` is ``obs``, which orders units by how well least
            squares does without them, where the result is compensated by it, and ``l1`` elsewhere.
        compensation: That of the result, as `default_compensation` returns it.
    """
    if not isinstance(importance, str) or importance != "auto":
        return importance
    return "obs" if reconstructs(compensation) else "l1"


def default_compensation(
    compensation: Any, data: Data | None, evaluator: EvaluatorConfig, finetune: FineTune | None
) -> tuple[Any, EvaluatorConfig]:
    """Fill in what ``auto`` stands for, and let the evaluator compensate as the result will be.

    Args:
        compensation: As the user gave it; ``auto`` is least squares, then BN recalibration, where
            there is data. Where no fine-tuning follows, layers are refitted one after the other in
            between: that takes as long as many candidates, and fine-tuning makes it needless.
        data: The run's data.
        evaluator: How candidates are scored; its own choice of compensation, if any, is kept.
        finetune: The recipe; None or no epochs for none.

    Returns:
        The compensation of the result, and the evaluator's settings: candidates get "least_squares"
        in place of "sequential", and BN recalibration is left to the evaluator's ``statistics``.
    """
    if isinstance(compensation, str):
        compensation = None if compensation == "auto" and data is None else [compensation]
        if compensation == ["auto"]:
            tuned = finetune is not None and finetune.epochs > 0
            compensation = ["least_squares", *([] if tuned else ["sequential"]), "bn"]
    elif compensation is not None and not isinstance(compensation, Sequence):
        compensation = [compensation]
    chosen = list(compensation or ()) or None
    if chosen and not evaluator.compensation:
        quick = ["least_squares" if is_sequential(item) else item for item in chosen]
        others = dict.fromkeys(item for item in quick if item != "bn")
        evaluator = replace(evaluator, compensation=tuple(others))
    return chosen, evaluator
