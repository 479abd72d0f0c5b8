"""What every search agent has in common, and the registry of their names."""

from __future__ import annotations

import copy
import importlib
import json
import shutil
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rlprune.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from rlprune.search.session import Session

_STATE_FILE = "agent.json"

RUN_SUBFOLDER = "agent"
"""Where a run keeps its agent."""

#: Agent names and where their classes live (imported when asked for).
AGENTS: dict[str, str] = {
    "uniform": "rlprune.search.uniform:UniformAgent",
    "random": "rlprune.search.random:RandomAgent",
    "evolution": "rlprune.search.evolution:EvolutionAgent",
    "cem": "rlprune.search.cem:CemAgent",
    "amc": "rlprune.search.amc:AmcAgent",
    "ppo_lagrangian": "rlprune.search.ppo_lagrangian.agent:PPOLagrangianAgent",
}


@dataclass(frozen=True)
class AgentConfig:
    """Base of the agents' configurations.

    Attributes:
        anchor: what action 0 stands for, and so where a search begins: ``uniform``, one keep ratio
            everywhere, or ``sensitivity``, the plan with the least predicted damage.
    """

    name: ClassVar[str] = ""
    anchor: str = "uniform"

    def __post_init__(self) -> None:
        """Checks values; subclasses extend it."""
        from rlprune_envs.setting import ANCHORS

        self.require(self.anchor in ANCHORS, "anchor", " or ".join(ANCHORS))

    def require(self, condition: bool, field: str, valid: str) -> None:
        """Raises :class:`ConfigError` naming ``field`` and its value unless ``condition``."""
        if not condition:
            raise ConfigError(
                f"agent {self.name!r}: {field} must be {valid}, got {getattr(self, field)!r}"
            )


class Agent(ABC):
    """Proposes plans by acting in KeepRatio-v0 until the session is done.

    An agent is a deterministic function of its configuration, the session's seed and what the
    environment returns; that is what makes a killed search resumable by replay.
    """

    config_class: ClassVar[type[AgentConfig]]
    #: Keyword arguments of the environment that this agent acts in.
    env_options: ClassVar[dict[str, Any]] = {"project": True}

    def __init__(self, config: AgentConfig | None = None) -> None:
        self.config = self.config_class() if config is None else config
        self.state: dict[str, Any] = {}
        #: Where what was learned before comes from; None for an agent that starts from nothing.
        self.origin: str | None = None

    @property
    def name(self) -> str:
        """Registered name."""
        return self.config_class.name

    def identity(self) -> dict[str, Any]:
        """Kind, options and what was learned before (see :mod:`rlprune.identity`)."""
        return {"name": self.name, "type": type(self), "config": self.config, "state": self.state}

    def options(self) -> dict[str, Any]:
        """Keyword arguments for the environment."""
        return {**self.env_options, "anchor": self.config.anchor}

    @abstractmethod
    def run(self, session: Session) -> None:
        """Acts until ``session.done``."""

    def heir(self) -> Agent:
        """A new agent with the same options whose search starts from what this one learned."""
        agent = type(self)(self.config)
        agent.state = copy.deepcopy(self.state)
        agent.origin = self.origin
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
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise CheckpointError(f"cannot read a saved agent from {file}: {error}") from error
        if record.get("agent") != self.name:
            raise CheckpointError(
                f"{file} holds a {record.get('agent')!r} agent, expected {self.name!r}"
            )
        self.state = record["state"]
        self.origin = str(folder)


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


def copy_saved(folder: str | Path, target: Path) -> None:
    """Copies the files of a saved agent (see :func:`saved_in`) into the folder ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(saved_in(folder).iterdir()):
        if file.is_file():
            shutil.copyfile(file, target / file.name)


def create_agent(name: str, **config: Any) -> Agent:
    """Makes an agent by name.

    Args:
        name: a key of :data:`AGENTS`.
        **config: fields of the agent's configuration class.

    Raises:
        ConfigError: unknown name, unknown field or value out of range.
    """
    if name not in AGENTS:
        raise ConfigError(f"unknown agent {name!r}; available: {', '.join(sorted(AGENTS))}")
    module, _, attribute = AGENTS[name].partition(":")
    agent_class: type[Agent] = getattr(importlib.import_module(module), attribute)
    known = {f.name for f in fields(agent_class.config_class)}
    unknown = sorted(set(config) - known)
    if unknown:
        raise ConfigError(
            f"agent {name!r} has no option {', '.join(unknown)}; available: "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    try:
        return agent_class(agent_class.config_class(**config))
    except TypeError as error:
        raise ConfigError(f"agent {name!r}: a value has the wrong type: {error}") from error
