"""Models and tokenizers into a folder of the hub's layout."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from pathlib import Path
from typing import Any

from rlprune.files import write_atomically
from rlprune.integrations.hf.expression import Expression, express
from rlprune.plan import Plan

log = logging.getLogger(__name__)

MODELLING = "modeling_pruned.py"


def save(
    model: Any, folder: str | Path, tokenizer: Any = None, plan: Plan | None = None
) -> Expression:
    """Write a pruned network so that transformers loads it again.

    Where some configuration builds the network, plain ``AutoModel....from_pretrained(folder)``
    loads it; a Llama whose heads no longer fill its hidden width is written as the Mistral that
    computes the same. Otherwise the folder also holds a small modelling file, and
    ``from_pretrained(folder, trust_remote_code=True)`` or `load` build it; rlprune is needed for
    neither.

    Args:
        model: a network of transformers; not changed.
        folder: made if it is not there; files of the same names are replaced.
        tokenizer: written beside it.
        plan: written as ``plan.json``.

    Returns:
        Class, configuration and what it could not say (`Expression`).

    Raises:
        ConfigError: it is no network of transformers, or modules were replaced in it.
    """
    target = Path(folder).expanduser()
    found = express(model)
    target.mkdir(parents=True, exist_ok=True)
    config = found.config
    name = found.kind.__name__
    outgoing = copy.copy(found.model)
    outgoing.__dict__["config"] = copy.deepcopy(config)
    outgoing.save_pretrained(target, safe_serialization=True)
    written = json.loads((target / "config.json").read_text(encoding="utf-8"))
    written["architectures"] = [name]
    for key in ("auto_map", "pruned"):
        written.pop(key, None)
    (target / MODELLING).unlink(missing_ok=True)
    if found.residue:
        written["auto_map"] = {
            auto: f"{Path(MODELLING).stem}.Pruned{kind}" for auto, kind in _autos(found).items()
        }
        written["pruned"] = found.residue.to_dict()
        shutil.copyfile(Path(__file__).with_name(MODELLING), target / MODELLING)
        log.info("%s: its configuration cannot say it all; wrote %s too", target, MODELLING)
    text = json.dumps(written, indent=2, sort_keys=True) + "\n"
    write_atomically(target / "config.json", lambda path: path.write_text(text, encoding="utf-8"))
    if tokenizer is not None:
        tokenizer.save_pretrained(target)
    if plan is not None:
        text = plan.to_json()
        write_atomically(target / "plan.json", lambda path: path.write_text(text, encoding="utf-8"))
    return found


def _autos(found: Expression) -> dict[str, str]:
    """The auto classes that give this class, and ``AutoModel`` with the base of it."""
    import transformers

    autos = {}
    config = type(found.config)
    for name in dir(transformers):
        if name.startswith("AutoModel") and name != "AutoModel":
            mapping = getattr(getattr(transformers, name), "_model_mapping", None)
            try:
                kinds = () if mapping is None else mapping[config]
            except (KeyError, ValueError, ImportError, AttributeError):
                continue
            kinds = kinds if isinstance(kinds, (tuple, list)) else (kinds,)
            if found.kind in kinds:
                autos[name] = found.kind.__name__
    base: Any = transformers.AutoModel._model_mapping[config]
    base = base[0] if isinstance(base, (tuple, list)) else base
    return autos | {"AutoModel": base.__name__}
