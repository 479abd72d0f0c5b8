"""The specification of a run: every option with its default, checked before anything starts.

Python (:func:`rlprune.prune`), the command line, benchmarks and the runs of a front all build a
:class:`RunSpec`; no other place has defaults of its own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch

from rlprune import models, tasks
from rlprune.budgets import Budget, BudgetSets, sets
from rlprune.budgets.latency import DTYPES
from rlprune.errors import ConfigError
from rlprune.export import EVERYWHERE, FORMATS
from rlprune.options import build, check_types, hint
from rlprune.problem import EvaluatorConfig, create_executor
from rlprune.run.folder import STAGES
from rlprune.run.placing import resolve_device
from rlprune.run.schedule import ScheduleSpec
from rlprune.space.decision import LAYERS
from rlprune.structure.limits import Limits
from rlprune.training import FineTune, Pretrain

_DECISIONS = ("tie", "depth")


@dataclass(frozen=True)
class StructureSpec:
    """What may be pruned. Names are globs over the table of ``rlprune discover``.

    Attributes:
        exclude: Groups that stay whole.
        min_width: Fewest units of any group.
        round_to: Kept channels are multiples of it: a number, or globs to numbers.
        bounds: Globs to (lowest, highest) keep ratio.
        tie: Globs, or several joined by ``|``; the groups that one of them matches share one keep
            ratio.
        depth: Whether the search may drop whole residual branches; ``layers``: all branches of a
            layer at once.
    """

    exclude: tuple[str, ...] = ()
    min_width: int = 1
    round_to: int | Mapping[str, int] = 1
    bounds: Mapping[str, tuple[float, ...] | list[float]] = field(default_factory=dict)
    tie: tuple[str, ...] = ()
    depth: bool | str = False

    def __post_init__(self) -> None:
        """Check what needs no network; the rest is checked where the groups are found."""
        check_types(self, "structure")
        if isinstance(self.depth, str) and self.depth != LAYERS:
            raise ConfigError(f"structure.depth={self.depth!r}: choose of true, false, {LAYERS}")
        for glob, pair in self.bounds.items():
            if len(pair) != 2:
                raise ConfigError(f"structure.bounds: {glob!r} is {list(pair)}; give two ratios")
        Limits(**self.options())

    def options(self) -> dict[str, Any]:
        """Keyword arguments of :func:`rlprune.discover`."""
        own = {name: value for name, value in vars(self).items() if name not in _DECISIONS}
        return {**own, "bounds": {g: tuple(pair) for g, pair in self.bounds.items()}}

    def decisions(self) -> dict[str, Any]:
        """Keyword arguments of :class:`rlprune.space.Space`."""
        return {name: getattr(self, name) for name in _DECISIONS}


@dataclass(frozen=True)
class TimingSpec:
    """How the report times the dense and the pruned network.

    Attributes:
        batch_size: Samples per forward.
        repeats: Timed pairs of forwards.
        warmup: Untimed forwards of each network.
        threads: CPU threads; None keeps the current number.
        dtype: Floating-point type of weights and inputs.
        device: Where to run; None is where the run's networks are.
    """

    batch_size: int = 1
    repeats: int = 30
    warmup: int = 3
    threads: int | None = None
    dtype: str = "float32"
    device: str | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        check_types(self, "latency")
        for name, least in (("batch_size", 1), ("repeats", 1), ("warmup", 0), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"latency.{name} must be at least {least}, got {value}")
        if self.device is not None:
            resolve_device(self.device, torch.nn.Identity())
        if self.dtype not in DTYPES:
            raise ConfigError(f"latency.dtype={self.dtype!r}: {hint(self.dtype, DTYPES)}")


@dataclass(frozen=True)
class QualitySpec:
    """What ``objective=`` may cost.

    Attributes:
        max_drop: How far the task's metric on held-out samples may fall after fine-tuning: a number
            in the metric's unit, or a text such as ``"1%"``: points of metrics that are shares (1%
            is one point of accuracy), a share of the dense network's value for others.
        tries: Limits of the objective that are tried.
    """

    max_drop: float | str | None = None
    tries: int = 5

    def __post_init__(self) -> None:
        """Check the number, and read the text."""
        check_types(self, "quality")
        if self.tries < 1:
            raise ConfigError(f"quality.tries must be at least 1, got {self.tries}")
        if self.max_drop is not None:
            self._number()

    def drop(self, metric: tasks.Metric, dense: float) -> float:
        """The allowed fall in the metric's own unit, given the dense network's value."""
        number, relative = self._number()
        return number * abs(dense) if relative and metric.scale == 1 else number

    def _number(self) -> tuple[float, bool]:
        text = str(self.max_drop).strip()
        relative = text.endswith("%")
        try:
            number = float(text.removesuffix("%")) / (100 if relative else 1)
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            raise ConfigError(
                f"quality.max_drop={self.max_drop!r}: give a number from 0 on, or a text as '1%'"
            )
        return number, relative


@dataclass(frozen=True)
class RunSpec:
    """Everything that is asked of a run, besides the network and its data.

    Attributes:
        budgets: As for :func:`rlprune.budgets.parse`; one of them may have a list of limits.
        objective: Name of a budget whose value is made as small as ``quality`` allows, whatever its
            limit; None keeps quality as high as the budgets allow.
        quality: What an objective may cost.
        protect: What must not be forgotten, see :func:`rlprune.budgets.protected`.
        task: What the network is for, see :func:`rlprune.tasks.resolve`; None takes the data's.
        agent: Search agent: a name, a mapping with ``name`` and options, a configuration, an agent.
        evaluations: Unique candidate evaluations of the search.
        front_later: With a list of limits, the evaluations of every limit after the first one, as
            a share.
        importance: Criterion that orders the units of a group; ``auto`` depends on compensation.
        compensation: How surviving weights make up for the removed ones; ``auto`` depends on data
            and fine-tuning.
        evaluator: How candidates are scored.
        finetune: The recipe; ``auto`` trains where there is data.
        schedule: One-shot, or iterative: a name, or the settings.
        structure: What may be pruned.
        latency: How the report times networks.
        exports: Which files are written beside plan and weights, by name, see
            :data:`rlprune.export.FORMATS`. What a format cannot say is left out of the search.
        stages: Which stages run.
        executor: Where candidates are measured, see :func:`rlprune.problem.create_executor`.
        workers: How many processes, or ``auto``; None takes the executor's own number.
        seed: Decides every random choice.
        device: Where networks run; None stays where the model is, ``auto`` takes a GPU.
        out_dir: The run folder; None keeps nothing.
        factory: How the dense network is built again, see :func:`rlprune.load`.
        redo: Whether stages run again whose settings differ from those recorded.
        progress: Whether bars are drawn; None draws them on a terminal.

    Raises:
        ConfigError: An option is unknown, has another type or is out of its range.
        BudgetError: A budget cannot be read.

    Example:
        >>> RunSpec.of(budgets={"macs": 0.5}, evaluator={"images": 128}).evaluations
        300
    """

    budgets: Any = None
    objective: str | None = None
    quality: QualitySpec = field(default_factory=QualitySpec)
    protect: Mapping[str, Any] = field(default_factory=dict)
    task: Any = None
    agent: Any = "ppo_lagrangian"
    evaluations: int = 300
    front_later: float = 0.4
    importance: Any = "auto"
    compensation: Any = "auto"
    evaluator: EvaluatorConfig = field(default_factory=EvaluatorConfig)
    finetune: FineTune | Literal["auto"] | None = "auto"
    schedule: ScheduleSpec = field(default_factory=ScheduleSpec)
    structure: StructureSpec = field(default_factory=StructureSpec)
    latency: TimingSpec = field(default_factory=TimingSpec)
    exports: tuple[str, ...] = EVERYWHERE
    stages: tuple[str, ...] = STAGES
    executor: Any = "serial"
    workers: int | Literal["auto"] | None = None
    seed: int = 0
    device: Any = None
    out_dir: str | os.PathLike[str] | None = None
    factory: str | Mapping[str, Any] | None = None
    redo: bool = False
    progress: bool | None = None

    def __post_init__(self) -> None:
        """Check everything that can be checked without the network."""
        check_types(self, "prune")
        if self.evaluations < 1:
            raise ConfigError(f"evaluations must be at least 1, got {self.evaluations}")
        if not 0 < self.front_later <= 1:
            raise ConfigError(f"front: later must be in (0, 1], got {self.front_later}")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")
        if not self.stages:
            raise ConfigError(f"stages is empty; choose of {', '.join(STAGES)}")
        _known("stage", self.stages, STAGES)
        for name in self.exports:
            FORMATS.find(name)
        if isinstance(self.factory, Mapping) and not all(isinstance(k, str) for k in self.factory):
            raise ConfigError("factory: expected keyword arguments of rlprune.models.create")
        if isinstance(self.factory, str):
            _factory(self.factory)
        object.__setattr__(self, "stages", tuple(s for s in STAGES if s in self.stages))
        if (self.objective is None) != (self.quality.max_drop is None):
            raise ConfigError("objective= and quality.max_drop= belong together; give both")
        if self.schedule.iterative and self.asked().varied is not None:
            raise ConfigError("schedule=iterative takes one limit for each budget, not a list")
        self._resolve()

    def _resolve(self) -> None:
        """Read budgets and names, so that mistakes are told before any training."""
        from rlprune.compensation import methods
        from rlprune.importance import find
        from rlprune.search.agent import resolve_agent

        self.asked()
        create_executor(self.executor, workers=self.workers)
        tasks.resolve(self.task)
        if self.agent is not None:
            resolve_agent(self.agent)
        if self.importance != "auto" and not isinstance(self.importance, Mapping):
            find(self.importance)
        if self.compensation != "auto":
            methods(self.compensation)
        methods(self.evaluator.compensation)

    def asked(self) -> BudgetSets:
        """The budgets, one set for every limit of a front."""
        if self.objective is not None and self.budgets is None:
            return sets(_without_limit({}, self.objective))
        if not isinstance(self.budgets, (Mapping, list, tuple)):
            raise ConfigError(
                f"budgets={self.budgets!r}: give names with limits, as in budgets={{'macs': 0.5}}"
            )
        if self.objective is None:
            return sets(self.budgets)
        found = sets(_without_limit(self.budgets, self.objective))
        if found.varied is not None:
            raise ConfigError(f"objective={self.objective}: the other budgets take one limit each")
        return found

    @classmethod
    def of(cls, **options: Any) -> RunSpec:
        """Build a specification from keyword arguments as :func:`rlprune.prune` takes them.

        Args:
            **options: Fields, and those of ``structure`` by themselves; mappings for the nested
                ones are taken too, and lists for tuples.
        """
        given = dict(options)
        own = {field.name for field in fields(StructureSpec)}
        structure = {name: given.pop(name) for name in sorted(own & given.keys())}
        known = {field.name for field in fields(cls)} - {"structure"}
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ConfigError(
                f"prune has no option {unknown[0]!r}; {hint(unknown[0], known | own)}"
            )
        structure = {name: value for name, value in structure.items() if value is not None}
        for name in ("exclude", "tie"):
            if isinstance(structure.get(name), str):
                structure[name] = (structure[name],)
        given["structure"] = build(StructureSpec, _tuples(structure), "structure")
        if given.get("protect", {}) is None:
            given["protect"] = {}
        if isinstance(given.get("schedule"), str):
            given["schedule"] = {"name": given["schedule"]}
        for name, kind in (
            ("evaluator", EvaluatorConfig), ("finetune", FineTune), ("latency", TimingSpec),
            ("schedule", ScheduleSpec), ("quality", QualitySpec),
        ):  # fmt: skip
            value = given.get(name)
            if isinstance(value, Mapping) or (
                value is None and name in given and name != "finetune"
            ):
                given[name] = build(kind, value or {}, name)
        if isinstance(given.get("finetune"), str) and given["finetune"] != "auto":
            raise ConfigError(
                f"finetune must be a FineTune, None or 'auto', got {given['finetune']!r}"
            )
        for name in ("exports", "stages"):
            if isinstance(given.get(name), list):
                given[name] = tuple(given[name])
        return cls(**given)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> RunSpec:
        """Build a specification from a composed configuration of the command line.

        Args:
            config: As ``rlprune --cfg job`` prints it.
            **options: Options that a configuration does not have, such as ``out_dir``.

        Raises:
            ConfigError: Also for a key that no part of rlprune reads, and for what is wrong with
                the training of the dense network.
        """
        valid = (*_CONFIG, *_ELSEWHERE)
        unknown = [key for key in config if key not in valid]
        if unknown:
            raise ConfigError(f"the configuration has no {unknown[0]!r}; {hint(unknown[0], valid)}")
        front = config["front"]
        if not isinstance(front, Mapping) or set(front) != {"later"}:
            raise ConfigError(f"front={front!r}: it has the option 'later' alone")
        _check_dense(config["dense_seed"], config["pretrained_dir"])
        Pretrain.from_dict(config["pretrain"])
        stage = config["stage"]
        return cls.of(
            budgets={name: value for name, value in config["budget"].items() if value is not None},
            front_later=front["later"],
            importance=_criterion(config["importance"]),
            stages=STAGES if stage in ("all", "pretrain") else (stage,),
            exports=config["export"],
            **{name: config[name] for name in _SAME},
            **vars(build(StructureSpec, config["structure"], "structure")),
            **options,
        )


_SAME = (
    "protect", "task", "agent", "evaluations", "compensation", "evaluator", "finetune", "schedule",
    "latency", "seed", "executor", "objective", "quality",
)  # fmt: skip
_CONFIG = ("budget", "front", "importance", "stage", "export", "structure", *_SAME)
_ELSEWHERE = (
    "model", "data", "pretrain", "dense_seed", "device", "threads", "run", "pretrained_dir",
    "bench", "sparse", "callbacks", "launcher", "vocabulary",
)  # fmt: skip
"""Keys of a configuration that describe the network, its data, or how the program runs."""


def _check_dense(seed: Any, folder: Any) -> None:
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ConfigError(f"dense_seed={seed!r}: give a whole number from 0")
    if not isinstance(folder, str) or not folder:
        raise ConfigError(f"pretrained_dir={folder!r}: give a folder")


def _criterion(importance: Mapping[str, Any] | str) -> Any:
    """The importance criterion of a configuration: a name, or a function by its dotted path."""
    from rlprune.locate import locate

    if isinstance(importance, str):
        chosen: Any = importance
    else:
        chosen = importance.get("_target_", importance.get("criterion"))
    if chosen is None:
        raise ConfigError("importance: give criterion=a name, or _target_=a function's dotted path")
    return locate(chosen) if "." in chosen else chosen


def _without_limit(budgets: Any, objective: str) -> dict[str, Any]:
    """Budgets among which the objective allows the dense network."""
    named = budgets if isinstance(budgets, Mapping) else {b.name: b for b in budgets}
    found = {str(name): value for name, value in named.items()}
    given = found.get(objective)
    if isinstance(given, Mapping):
        found[objective] = {**given, "limit": "100%"}
    elif isinstance(given, Budget):
        found[objective] = given.limited("100%")
    else:
        found[objective] = "100%"
    return found


def _known(kind: str, chosen: tuple[str, ...], valid: tuple[str, ...]) -> None:
    unknown = [name for name in chosen if name not in valid]
    if unknown:
        raise ConfigError(f"{kind} {unknown[0]!r} is unknown; {hint(unknown[0], valid)}")


def _factory(name: str) -> None:
    parts = name.replace(":", ".").split(".")
    path = len(parts) > 1 and all(part.isidentifier() for part in parts)
    if not path and "/" not in name and name not in models.names():
        raise ConfigError(
            f"factory={name!r}: give the dotted path of a function, as in my_package.nets.build, "
            f"or a name of rlprune.models; {hint(name, models.names())}"
        )


def _tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
