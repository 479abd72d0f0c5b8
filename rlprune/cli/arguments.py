"""What has to happen to the command line before Hydra reads it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlprune.cli.trust import TRUST, is_own, require_harmless
from rlprune.errors import ConfigError

_LIST = re.compile(r"^(budget\.(\w+))=(\[.*\])$")


def continued(arguments: Sequence[str]) -> list[str]:
    """Turn ``run=FOLDER ...`` into the command line of that run, with later overrides winning.

    Args:
        arguments: The command line without the program's name.

    Returns:
        The recorded overrides, then those given, writing into the same folder. A command line
        without ``run=`` comes back as it is.

    Raises:
        ConfigError: The folder holds no run, a sweep was asked for, or what is recorded came from
            elsewhere and names functions, without ``trust=true``.
    """
    trusted = any(a in TRUST for a in arguments)
    arguments = [a for a in arguments if a not in TRUST]
    chosen = [a for a in arguments if a.startswith("run=") and a[4:] not in ("", "null")]
    if not chosen:
        return list(arguments)
    if len(chosen) > 1 or any(a in ("-m", "--multirun") for a in arguments):
        raise ConfigError(
            "run= names one folder and cannot be swept; to go on with a sweep, start it again with "
            "hydra.sweep.dir=its folder"
        )
    folder = Path(chosen[0][4:].strip("'\"")).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"run={folder}: there is no such folder")
    hydra = _recorded(folder / ".hydra" / "hydra.yaml")["hydra"]
    task = [str(item) for item in _recorded(folder / ".hydra" / "overrides.yaml")]
    given = [item for item in arguments if item not in chosen]
    task = [item for item in task if _key(item) not in ("run", "stage")]
    before: list[str] = []
    for source in hydra["runtime"]["config_sources"]:
        if source["provider"] == "command-line":
            before += ["--config-dir", str(source["path"])]
    if not (trusted or is_own(folder / ".hydra")):
        require_harmless(folder, task, before[1::2])
    target = _quoted(folder.resolve())
    return [*before, *merged(task, given), f"run={target}", f"hydra.run.dir={target}"]


def listed(arguments: Sequence[str]) -> list[str]:
    """Write ``budget.NAME=[...]`` as ``budget.NAME.limit=[...]`` where that budget has options.

    Hydra cannot put a list in the place of a node, and the other options of the node shall stay.

    Args:
        arguments: The command line without the program's name.
    """
    if not any(_LIST.match(item) for item in arguments):
        return list(arguments)
    return [
        f"{found[1]}.limit={found[3]}"
        if (found := _LIST.match(item)) and _is_node(found[2], arguments)
        else item
        for item in arguments
    ]


def own_agent(arguments: Sequence[str]) -> list[str]:
    """Write ``agent=`` of a dotted path or an installed agent's name as Hydra can read it.

    ``agent=my_package.module:Agent agent.step=0.2`` becomes a choice of the configuration
    ``agent/custom``, to which the class and its options are added; so does ``agent._target_=...``.

    Args:
        arguments: The command line without the program's name.
    """
    given = [a.partition("=")[2] for a in arguments if a.startswith("agent=")]
    targets = [a for a in arguments if _key(a) == "agent._target_"]
    added = []
    named = given[0] if len(given) == 1 else ""
    if ":" in named or "." in named or named in _installed_agents():
        added = ["agent=custom", f"++agent._target_={named}"]
    elif not given and targets:
        added = ["agent=custom"]
    if not added and given != ["custom"]:
        return list(arguments)
    rest = [a for a in arguments if not (added and a.startswith("agent="))]
    return [*added, *(f"++{a}" if a.startswith("agent.") else a for a in rest)]


def own_model(arguments: Sequence[str]) -> list[str]:
    """Choose ``model=custom`` where a network is named by ``model._target_=`` alone.

    Args:
        arguments: The command line without the program's name.
    """
    keys = {_key(item) for item in arguments}
    if "model._target_" in keys and not keys & {"model", "experiment"}:
        return ["model=custom", *arguments]
    return list(arguments)


def _installed_agents() -> set[str]:
    from rlprune.search.agent import AGENTS

    return set(AGENTS.names()) - set(AGENTS) - {""}


def _is_node(name: str, arguments: Sequence[str]) -> bool:
    """Whether the configuration's budget of this name is a node and not a bare limit."""
    from rlprune.run.config import compose

    others = [a for a in arguments if "=" in a and not a.startswith("-") and not _LIST.match(a)]
    pairs = itertools.pairwise(arguments)
    folders = [Path(after) for flag, after in pairs if flag in ("--config-dir", "-cd")]
    folders += [Path(a.partition("=")[2]) for a in arguments if a.startswith("--config-dir=")]
    choices = [a for a in others if _key(a).partition(".")[0] in ("budget", "experiment")]
    try:
        budgets = compose(choices, folders[0] if folders else None)["budget"]
    except ConfigError:  # a sweep over budgets, or a mistake that Hydra will name
        return True
    return isinstance(budgets.get(name, {}), dict)


def merged(recorded: Sequence[str], given: Sequence[str]) -> list[str]:
    """Recorded overrides with those given in their place; Hydra takes each key once.

    A key that the run had added with ``+`` may be given without it. Where a group is chosen anew,
    as in ``finetune=none``, what was recorded for its options goes with the earlier choice.
    """
    chosen = tuple(f"{_key(item)}." for item in given if "=" in item and _is_group(_key(item)))
    recorded = [item for item in recorded if not _key(item).startswith(chosen)]
    later = {
        _key(item): item
        for item in given
        if ("=" in item or item.startswith("~")) and not item.startswith("-")
    }
    merged = []
    for item in recorded:
        newer = later.pop(_key(item), None)
        if newer is not None and not newer.startswith("~"):
            item = _prefix(item) + newer.lstrip("+")
        elif newer is not None:
            continue
        merged.append(item)
    rest = [item for item in given if _key(item) in later or item.startswith("-")]
    return merged + rest


def _is_group(key: str) -> bool:
    from rlprune.run.config import config_dir

    return "." not in key and bool(key) and (config_dir() / key).is_dir()


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _prefix(override: str) -> str:
    return override[: len(override) - len(override.lstrip("+"))]


def _quoted(path: Path) -> str:
    text = path.as_posix().replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def _recorded(path: Path) -> Any:
    from omegaconf import OmegaConf

    if not path.is_file():
        raise ConfigError(f"run={path.parent.parent}: it holds no run of the command line ({path})")
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False)
