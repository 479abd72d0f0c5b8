"""What every search agent has in common, and the registry of their names."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rlprune.errors import CheckpointError, ConfigError
from rlprune.locate import locate
from rlprune.options import check_types
from rlprune.plan import Plan
from rlprune.plugins import Registry
from rlprune.space import ANCHORS

if TYPE_CHECKING:
    from torch import Tensor

    from rlprune.problem import Evaluation
    from rlprune.search.session import Session

_STATE_FILE = "agent.json"

RUN_SUBFOLDER = "agent"
"""Where a run keeps its agent."""

AGENTS: Registry[type[Agent] | str] = Registry("agent", "rlprune.agents")
"""Agents by name: classes, or where they live (imported when asked for)."""

for _name, _home in {
    "uniform": "rlprune.search.uniform.UniformAgent",
    "random": "rlprune.search.random.RandomAgent",
    "evolution": "rlprune.search.evolution.EvolutionAgent",
    "cem": "rlprune.search.cem.CemAgent",
    "amc": "rlprune.search.amc.AmcAgent",
    "ppo_lagrangian": "rlprune.search.ppo_lagrangian.agent.PPOLagrangianAgent",
    "gates": "rlprune.gates.agent.GatesAgent",
}.items():
    AGENTS.register(_name)(_home)


@dataclass(frozen=True)
class AgentConfig:
    """Base of the agents' configurations.

    Attributes:
        anchor: what action 0 stands for, and so where a search begins: ``uniform``, one keep ratio
            everywhere, ``sensitivity``, the plan with the least predicted damage, or a plan found
            before, by whatever agent: its JSON file, or the folder of a run.
    """

    name: ClassVar[str] = ""
    anchor: str = "uniform"

    def __post_init__(self) -> None:
        """Checks types, then values; subclasses extend it."""
        with contextlib.suppress(NameError):  # hints that only a type checker can read
            check_types(self, f"agent {self.name!r}")
        known = self.anchor in ANCHORS or _is_path(self.anchor)
        self.require(known, "anchor", f"{', '.join(ANCHORS)} or the path of a plan or a run")

    def require(self, condition: bool, field: str, valid: str) -> None:
        """Raises :class:`ConfigError` naming ``field`` and its value unless ``condition``."""
        if not condition:
            raise ConfigError(
                f"agent {self.name!r}: {field} must be {valid}, got {getattr(self, field)!r}"
            )


class Agent:
    """Proposes plans when asked, and is told what became of them.

    A subclass writes :meth:`ask`, and :meth:`tell` if it learns. One that trains in an environment
    of its own (``session.make_env()``) writes :meth:`run` in their place.

    An agent is a deterministic function of its configuration, the session's seed and what it is
    told; that is what makes a killed search resumable by replay.

    Attributes:
        session: the search at hand: its problem, space, codec, random generator and counts.
        config: the agent's options.
        state: what was learned, JSON-serialisable; saved with the run.
        origin: where what was learned before comes from; None for an agent that starts from
            nothing.
        weights: state dict of a copy of the dense network that the search has trained, or None.
    """

    config_class: ClassVar[type[AgentConfig]] = AgentConfig
    #: Whether plans are scaled onto the budgets before they are evaluated.
    project: ClassVar[bool] = True
    #: Whether `ask` bounds its own batches, whatever number it is asked for (a generation). Such
    #: an agent is asked for all that remains, which keeps every worker busy; others are asked for
    #: as many plans as there are workers.
    batches: ClassVar[bool] = False
    #: Whether ``config.start`` names a plan, whatever made it, and not an agent of this kind.
    starts_from_plan: ClassVar[bool] = False
    session: Session
    weights: dict[str, Tensor] | None = None

    def __init__(self, config: AgentConfig | None = None) -> None:
        self.config = self.config_class() if config is None else config
        self.state: dict[str, Any] = {}
        self.origin: str | None = None

    @property
    def name(self) -> str:
        """Registered name, or that of the class."""
        return self.config.name or type(self).__qualname__

    def identity(self) -> dict[str, Any]:
        """Kind, options and what was learned before (see :mod:`rlprune.identity`)."""
        told = {"name": self.name, "type": type(self), "config": self.config, "state": self.state}
        if _is_path(self.config.anchor):
            told["anchor"] = Plan.read(self.config.anchor).digest
        if self.config_class is not AgentConfig:
            return told
        known = {"session", "config", "state", "origin", "weights"}
        own = {k: v for k, v in vars(self).items() if k not in known and not k.startswith("_")}
        return {**told, "options": own}

    def options(self) -> dict[str, Any]:
        """How the session's codec and environments are made: ``anchor`` and ``project``."""
        anchor = self.config.anchor
        return {
            "anchor": Plan.read(anchor) if _is_path(anchor) else anchor,
            "project": self.project,
        }

    def start(self, session: Session) -> None:
        """Begins a search; subclasses extend it."""
        self.session = session

    def ask(self, n: int) -> Sequence[Plan]:
        """The next plans to evaluate.

        Args:
            n: how many can be evaluated now; more are left out.

        Returns:
            At most ``n`` plans, made by ``self.session.codec`` or in any other way; none ends the
            search.
        """
        raise NotImplementedError(f"{type(self).__qualname__} has neither ask() nor run()")

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Takes the evaluations of the plans asked for last, in their order.

        There are fewer than plans where the search's evaluations ran out.
        """

    def run(self, session: Session) -> None:
        """Searches until ``session.done``."""
        self.start(session)
        while not session.done:
            most = session.remaining if self.batches else session.workers
            plans = self.ask(min(most, session.remaining))
            if not plans:
                return
            self.tell(session.evaluate(plans))

    def heir(self) -> Agent:
        """A new agent with the same options whose search starts from what this one learned."""
        agent = copy.copy(self)
        agent.state = copy.deepcopy(self.state)
        agent.__dict__.pop("session", None)
        return agent

    def save(self, folder: str | Path) -> None:
        """Writes the configuration and what was learned into ``folder``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        record = {
            "agent": self.name,
            "config": asdict(self.config),
            "state": self.state,
            "origin": self.origin,
        }
        (folder / _STATE_FILE).write_text(json.dumps(record, indent=2), encoding="utf-8")

    def load(self, folder: str | Path) -> None:
        """Reads what was learned from ``folder``; a following search starts from it.

        Args:
            folder: what :meth:`save` wrote, or the folder of a run.

        Raises:
            CheckpointError: nothing readable there, or it belongs to another kind of agent.
        """
        file = saved_in(folder) / _STATE_FILE
        record = _record(file)
        if record.get("agent") != self.name:
            raise CheckpointError(
                f"{file} holds a {record.get('agent')!r} agent, expected {self.name!r}"
            )
        self.state = record["state"]
        self.origin = str(folder)


def _is_path(anchor: str) -> bool:
    """Whether an anchor is meant as a path rather than a name."""
    return anchor not in ANCHORS and (os.sep in anchor or Path(anchor).expanduser().exists())


def saved_in(folder: str | Path) -> Path:
    """The folder with a saved agent's files: ``folder`` itself, or ``agent`` in a run's folder.

    Raises:
        CheckpointError: there is no saved agent; names those one level below, if any.
    """
    folder = Path(folder).expanduser()
    for candidate in (folder, folder / RUN_SUBFOLDER):
        if (candidate / _STATE_FILE).is_file():
            return candidate
    below = sorted(path.parents[1] for path in folder.glob(f"*/{RUN_SUBFOLDER}/{_STATE_FILE}"))
    hint = f"; give one of {', '.join(map(str, below))}" if below else ""
    raise CheckpointError(f"cannot read a saved agent from {folder}: no {_STATE_FILE} there{hint}")


def load_state(folder: str | Path) -> dict[str, Any]:
    """What a saved agent has learned, whatever its kind (see :func:`saved_in`)."""
    found: dict[str, Any] = _record(saved_in(folder) / _STATE_FILE)["state"]
    return found


def _record(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"cannot read a saved agent from {file}: {error}") from error


def copy_saved(folder: str | Path, target: Path) -> None:
    """Copies the files of a saved agent (see :func:`saved_in`) into the folder ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(saved_in(folder).iterdir()):
        if file.is_file():
            shutil.copyfile(file, target / file.name)


def create_agent(name: str, **options: Any) -> Agent:
    """Makes an agent by name.

    Args:
        name: a registered name, that of an entry point ``rlprune.agents``, or the dotted path of a
            class (``my_package.module.Agent`` or ``my_package.module:Agent``).
        **options: fields of the agent's configuration class; arguments of the class where it has
            no configuration class of its own.

    Raises:
        ConfigError: unknown name, unknown option or value out of range.
    """
    found = AGENTS.find(name)
    kind: Any = locate(found) if isinstance(found, str) else found
    if not (isinstance(kind, type) and issubclass(kind, Agent)):
        raise ConfigError(f"agent {name!r} is {kind!r}; it must be a subclass of rlprune's Agent")
    if kind.config_class is AgentConfig and options.keys() - {"anchor"}:
        return _made(name, kind, options)
    known = {f.name for f in fields(kind.config_class)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise ConfigError(
            f"agent {name!r} has no option {', '.join(unknown)}; available: "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    return _made(name, kind, {"config": _made(name, kind.config_class, options)})


def resolve_agent(agent: str | AgentConfig | Agent | type[Agent] | Mapping[str, Any]) -> Agent:
    """Accepts what names an agent in every form.

    Args:
        agent: a name or dotted path; a mapping with ``name`` (or ``_target_``) and options; a
            configuration of a registered agent; a class; or an agent.

    Raises:
        ConfigError: it is none of these.
    """
    if isinstance(agent, Agent):
        return agent
    if isinstance(agent, str):
        return create_agent(agent)
    if isinstance(agent, type) and issubclass(agent, Agent):
        return agent()
    if isinstance(agent, Mapping) and ("name" in agent) != ("_target_" in agent):
        options = dict(agent)
        return create_agent(options.pop("_target_", None) or options.pop("name"), **options)
    if isinstance(agent, AgentConfig) and agent.name in AGENTS:
        resolved = create_agent(agent.name)
        resolved.config = agent
        return resolved
    raise ConfigError(
        f"agent must be one of {', '.join(AGENTS.names())}, the dotted path of a class, a mapping "
        f"with 'name' or '_target_', a configuration or an Agent; got {agent!r}"
    )


def _made(name: str, kind: Any, options: Mapping[str, Any]) -> Any:
    try:
        return kind(**options)
    except TypeError as error:
        raise ConfigError(f"agent {name!r}: wrong option: {error}") from error
