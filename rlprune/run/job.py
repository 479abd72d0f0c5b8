"""Everything that one run works with, checked before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rlprune import importance
from rlprune.budgets import Budget
from rlprune.callbacks import Callback
from rlprune.compaction import discover
from rlprune.compensation import methods
from rlprune.data import Data
from rlprune.errors import ConfigError
from rlprune.identity import describe
from rlprune.inputs import map_tensors, to_device
from rlprune.plan import Plan
from rlprune.run.defaults import filled_in
from rlprune.run.folder import RunFolder
from rlprune.run.limiting import limited
from rlprune.run.placing import device_of, place
from rlprune.run.spec import RunSpec
from rlprune.structure import Groups
from rlprune.training import FineTune


@dataclass
class Job:
    """One run: the dense network, the data, what is asked for, and where it is kept.

    Attributes:
        dense: A copy of the user's network, in eval mode, on the run's device.
        example_inputs: What it is called with, on the same device.
        data: Training, held-out and test samples, or None.
        score: The user's score, or None.
        asked: The specification as it was given.
        budgets: What the result has to meet: of a front, the budgets at one limit.
        evaluations: Unique candidate evaluations; of a front, those of one limit.
        folder: The run folder.
        callbacks: Told what happens; no result depends on them.
        spec: The specification with every ``auto`` filled in, and with what the exports can say of
            ``structure``.
        limits: What the exports limited, and why.
        settings: What each stage depends on (law 8), by stage.

    Raises:
        ConfigError: There is nothing to score candidates by, or to fine-tune on.
    """

    dense: nn.Module
    example_inputs: Any
    data: Data | None
    score: Callable[[nn.Module], float] | None
    asked: RunSpec
    budgets: tuple[Budget, ...]
    evaluations: int
    folder: RunFolder
    callbacks: tuple[Callback, ...] = ()
    spec: RunSpec = field(init=False)
    limits: tuple[str, ...] = field(init=False)
    settings: dict[str, dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        """Check what can be checked now, and note what each stage depends on."""
        if self.data is None and self.score is None:
            raise ConfigError(
                "give data=rlprune.Data(train=..., test=...), or score=a function of the network "
                "that returns a number, higher is better"
            )
        if self.score is not None and not callable(self.score):
            raise ConfigError(f"score must be a function of the network, got {self.score!r}")
        self.spec = filled_in(self.asked, self.data)
        structure, self.limits = limited(
            self.spec.structure, self.spec.exports, self.dense, self.example_inputs
        )
        self.spec = replace(self.spec, structure=structure)
        if self.recipe is not None and self.data is None:
            raise ConfigError("fine-tuning needs data=; give it, or finetune=None")
        gradual = self.spec.schedule.gradual
        if gradual and (self.recipe is None or not self.recipe.epochs):
            raise ConfigError("schedule=gradual prunes while it fine-tunes, and finetune= is none")
        data = {} if self.data is None else describe(self.data)
        if self.data is not None:
            task, outputs = self.data.task, self.data.num_classes
            task.check_network(self.dense, self.example_inputs, outputs)
            sample = to_device(self.data.example_inputs, self.device)
            task.check_network(self.dense, sample, outputs, "a sample of the data")
        self.settings = {"search": self._search_settings(data)}
        self.settings["finetune"] = {
            "recipe": describe(self.recipe),
            "seed": self.spec.seed,
            "augmentation": None if self.recipe is None else data.get("augmentation"),
        }
        if gradual:
            self.settings["finetune"]["schedule"] = describe(self.spec.schedule)
        self.settings["export"] = {"formats": list(self.spec.exports)}
        self.settings["report"] = {"latency": describe(self.spec.latency), "test": data.get("test")}

    @classmethod
    def open(
        cls,
        spec: RunSpec,
        model: nn.Module,
        example_inputs: Any,
        *,
        data: Data | None,
        score: Callable[[nn.Module], float] | None = None,
        folder: RunFolder,
        callbacks: Sequence[Callback] = (),
    ) -> Job:
        """The job of a specification; of a front, that of its loosest limit.

        Args:
            spec: What is asked for.
            model: The user's network, not changed.
            example_inputs: What it is called with.
            data: The samples, or None.
            score: The user's score, or None.
            folder: Where files go.
            callbacks: Told what happens.
        """
        dense, inputs = place(model, example_inputs, spec.device)
        budgets = spec.asked().sets[0]
        told = tuple(callbacks)
        return cls(dense, inputs, data, score, spec, budgets, spec.evaluations, folder, told)

    @property
    def whole_recipe(self) -> FineTune | None:
        """The fine-tuning recipe over all rounds of the schedule, or None."""
        recipe = self.spec.finetune
        assert not isinstance(recipe, str)
        return recipe

    @property
    def recipe(self) -> FineTune | None:
        """The recipe of the fine-tuning stage: that of the last round, where there are several."""
        recipe, schedule = self.whole_recipe, self.spec.schedule
        if recipe is None or not schedule.iterative:
            return recipe
        return replace(recipe, epochs=schedule.share(recipe.epochs, schedule.rounds))

    @cached_property
    def groups(self) -> Groups:
        """The groups of the dense network."""
        return discover(self.dense, self.example_inputs, **self.spec.structure.options())

    @property
    def device(self) -> torch.device:
        """Where the dense network is."""
        return device_of(self.dense)

    @cached_property
    def calibration(self) -> tuple[Any, Tensor] | None:
        """Calibration samples ``(x, y)``, or None without data."""
        if self.data is None:
            return None
        x, y = self.data.calibration(self.spec.evaluator.calibration_images)
        return to_device(x, self.device), y.to(self.device)

    def compacted(self, plan: Plan) -> nn.Module:
        """The compacted, compensated network of a plan, in eval mode, before fine-tuning."""
        from rlprune.compaction import build, verify
        from rlprune.compensation import compensate

        small = build(self.groups, plan)
        verify(self.groups, small, plan)
        if self.spec.compensation is not None:
            compensate(self.groups, plan, small, self.spec.compensation, self.calibration)
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
            "importance": self._criterion(),
            "compensation": methods(self._asked_compensation()),
            "evaluator": {
                **asdict(self.spec.evaluator),
                "compensation": methods(self.spec.evaluator.compensation),
            },
            "structure": self.spec.structure.options(),
            "decisions": self.spec.structure.decisions(),
            "seed": self.spec.seed,
        }
        if self.spec.schedule.iterative:
            settings.update(schedule=self.spec.schedule, finetune=self.whole_recipe)
        return {name: describe(setting) for name, setting in settings.items()}

    def _agent(self) -> Any:
        """The agent with every option, whatever form it was given in; None for benchmarks."""
        from rlprune.search.agent import resolve_agent

        return None if self.spec.agent is None else resolve_agent(self.spec.agent)

    def _criterion(self) -> Any:
        """The criterion: rlprune's own by name, others by what they are."""
        chosen = self.spec.importance
        if not isinstance(chosen, str):
            return chosen
        found = importance.find(chosen)
        return chosen if importance.CRITERIA.get(chosen) is found else found

    def _asked_compensation(self) -> Any:
        """Compensation as recorded: what ``auto`` adds for want of fine-tuning is left out.

        So a run without fine-tuning may be fine-tuned later.
        """
        chosen = self.spec.compensation
        auto = isinstance(self.asked.compensation, str) and self.asked.compensation == "auto"
        if not auto or chosen is None:
            return chosen
        return [item for item in chosen if item != "sequential"]


def _formal(tensor: Tensor) -> Tensor:
    """Type and shape alone: the values of example inputs are any."""
    return tensor.to("meta")
