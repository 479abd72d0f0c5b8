"""Whose command line a run folder records: ``run=FOLDER`` calls no stranger's functions (law 6).

A run signs the command line that it records, with a key that only this user has. What carries no
such signature came from elsewhere (another machine, or a time before there were signatures): it is
followed as far as it names nothing but what rlprune brings, or with ``trust=true``.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlprune import budgets
from rlprune.data import cache_dir
from rlprune.errors import ConfigError
from rlprune.files import write_text

SIGNATURE = "signature"
TRUST = ("trust=true", "trust=True")

_SIGNED = ("overrides.yaml", "hydra.yaml")
_BY_NAME = re.compile(
    r"(.*\.)?_target_|((agent|task|executor|data)(\.name)?)|importance(\.criterion)?"
    r"|(evaluator\.)?compensation(\..*)?|callbacks(\..*)?"
)
"""Keys of a configuration whose text is the path of a function or class where it has dots."""
_OURS = {"rlprune.integrations.hf.build", *(f"rlprune.budgets.{name}" for name in budgets.__all__)}
_OURS -= {"rlprune.budgets.Device"}  # it runs a command
"""What shipped configurations name by path."""


def sign(recorded: Path) -> None:
    """Sign a recorded command line.

    Args:
        recorded: The folder ``.hydra`` of a run.
    """
    key = _key()
    if key is not None:
        write_text(recorded / SIGNATURE, _signature(recorded, key) + "\n")


def is_own(recorded: Path) -> bool:
    """Whether this user's rlprune recorded a command line, and nobody has changed it since."""
    key = _key()
    try:
        found = (recorded / SIGNATURE).read_text(encoding="utf-8").strip()
        return key is not None and hmac.compare_digest(found, _signature(recorded, key))
    except (OSError, ValueError, TypeError):
        return False


def require_harmless(folder: Path, overrides: Sequence[str], added: Sequence[str]) -> None:
    """Refuse a recorded command line that names functions.

    Args:
        folder: The run folder, for the message.
        overrides: The recorded overrides.
        added: Folders of configurations that it added.

    Raises:
        ConfigError: It does; says which, and what to do.
    """
    named = next(_named(overrides, added), None)
    if named is not None:
        raise ConfigError(
            f"run={folder}: its command line was recorded elsewhere and holds {named}, which could "
            "run any code; give trust=true if the folder is yours"
        )


def _named(overrides: Sequence[str], added: Sequence[str]) -> Iterator[str]:
    """What could run code, in words."""
    from rlprune.models.trust import is_harmless
    from rlprune.run import compose

    yield from (f"--config-dir {path}" for path in added)
    for item in overrides:
        if "hydra" in item.partition("=")[0]:
            yield item
    config = compose([item for item in overrides if not item.startswith("-")])
    for path, value in _leaves(config):
        named = _BY_NAME.fullmatch(path) and _is_path(value) and value not in _OURS
        if named or path.endswith(".command"):  # of a budget that a device measures
            yield f"{path}={value}"
    model = {k: v for k, v in config["model"].items() if k not in ("checkpoint", "weights")}
    if not is_harmless(model) and model.get("_target_") not in _OURS:
        yield f"model={model.get('name', model.get('_target_'))}"


def _is_path(value: Any) -> bool:
    """Whether a text could be the path of a function: one word is a name that is known here."""
    return isinstance(value, str) and not value.isidentifier()


def _leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{at}.{key}" if at else str(key))
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{at}.{number}")
    else:
        yield at, value


def _signature(recorded: Path, key: bytes) -> str:
    content = b"\0".join((recorded / name).read_bytes() for name in _SIGNED)
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def _key() -> bytes | None:
    """This user's key, made when there is none; None where it can be neither read nor made."""
    path = cache_dir() / "signing-key"
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: the first runs of a sweep may ask at the same time.
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".key-") as file:
            file.write(secrets.token_hex(32).encode())
            file.flush()
            os.link(file.name, path)
    with contextlib.suppress(OSError):
        return path.read_bytes() or None
    return None
