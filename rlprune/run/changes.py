"""Whether a run folder belongs to the run that is asked for."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from rlprune.errors import ConfigError
from rlprune.files import plain, read_json, write_json
from rlprune.identity import changes
from rlprune.run.job import Job
from rlprune.run.reachable import require_reachable
from rlprune.run.search_stage import START, STORE

log = logging.getLogger(__name__)

RUN_FILE = "run.json"
FORMAT = 2
"""Of the run folder. The first did not record all that results depend on."""

_AN_OLD_ONE = [
    f"it was made by an older rlprune, whose folders (before format {FORMAT}) do not record the "
    "content of the data and the code of functions"
]
_STORE_SURVIVES = {"agent", "decisions", "evaluations", "front"}


def compare_with_run(job: Job) -> None:
    """Record the run's settings in its folder, or compare them with those recorded there.

    Args:
        job: The run. Where it may redo stages with other settings, evaluations on disk are kept
            as far as they still hold, and set aside otherwise.

    Raises:
        ConfigError: The folder holds a run with other settings, and the run may not redo any.
        InfeasibleBudgetError: It may, but no plan can meet the budgets asked for now; the folder
            stays as it is.
    """
    import rlprune

    path = job.folder / RUN_FILE
    recorded = read_json(path)
    settings = plain(job.settings)
    if recorded is not None:
        old = recorded.get("format") != FORMAT
        found = _AN_OLD_ONE if old else list(_changes(recorded.get("settings", {}), settings))
        if found and not job.spec.redo:
            raise ConfigError(
                f"{job.folder.path} holds a run with other settings ({'; '.join(found)}); "
                "choose another folder, or redo=True to run the stages again that they concern"
            )
        for change in found:
            log.info("changed since the run in %s: %s", job.folder.path, change)
        before = recorded.get("settings", {}).get("search", {})
        if before.get("budgets") != settings["search"]["budgets"]:
            require_reachable(job)
        differ = {key for key in settings["search"] if before.get(key) != settings["search"][key]}
        if differ - _STORE_SURVIVES:
            _set_aside(job)
        if differ:
            shutil.rmtree(job.folder / START, ignore_errors=True)
        if found:
            shutil.rmtree(job.folder / "finetune", ignore_errors=True)
    write_json(
        path,
        {
            "format": FORMAT,
            "rlprune": rlprune.__version__,
            "factory": _factory(job) or (recorded or {}).get("factory"),
            "structure": plain(job.spec.structure.options()),
            "settings": settings,
        },
    )


def _factory(job: Job) -> Any:
    factory = job.spec.factory
    return {"name": factory} if isinstance(factory, str) else plain(factory)


def _set_aside(job: Job) -> None:
    """Rename the store of evaluations that no longer hold."""
    store = job.folder / STORE
    if store.exists():
        number = 1
        while (target := store.with_name(f"evaluations.{number}.jsonl")).exists():
            number += 1
        store.rename(target)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for stage, settings in now.items():
        yield from changes(before.get(stage, {}), settings)
