"""Results in the hub's layout: for plain transformers, for vLLM, or with a modelling file."""

from __future__ import annotations

import json
from dataclasses import replace
from math import lcm
from pathlib import Path
from typing import Any

from rlprune.errors import ConfigError
from rlprune.export import Format, Handover, Limited
from rlprune.integrations.hf.expression import express
from rlprune.integrations.hf.limits import stock_limits
from rlprune.integrations.hf.loading import tokenizer_of
from rlprune.integrations.hf.saving import save
from rlprune.integrations.hf.vocabulary import with_vocabulary
from rlprune.structure import Groups

FOLDER = "pruned"
"""Below the run folder: the result in the hub's layout."""


class WithCode(Format):
    """The hub's layout, with a modelling file where no stock configuration says the network."""

    stock = False

    def write(self, handover: Handover) -> dict[str, Any]:
        """Write model, tokenizer and plan.

        Raises:
            ConfigError: it is no network of transformers, or needs a modelling file and may not.
        """
        target = handover.folder / FOLDER
        source = handover.source
        if self.stock and express(handover.network).residue:
            raise ConfigError(
                f"no stock configuration builds the {type(handover.network).__name__} of this "
                "plan, though its widths were limited for one; export it as hf_code, and please "
                "report it"
            )
        plan = with_vocabulary(handover.plan, source)
        found = save(handover.network, target, tokenizer_of(source), plan)
        trusted = ", trust_remote_code=True" if found.residue else ""
        files = sorted(f"{FOLDER}/{p.name}" for p in target.iterdir() if p.name != "report.json")
        return {
            "file": f"{FOLDER}/model.safetensors",
            "files": files,
            "class": found.kind.__name__,
            "use": f'{_auto(target)}.from_pretrained("{target.as_posix()}"{trusted})',
        }


class Stock(WithCode):
    """The hub's layout for plain ``from_pretrained``, which has one number for all layers."""

    stock = True

    def limits(self, groups: Groups, depth: bool | str = False) -> Limited:
        """See `rlprune.integrations.hf.limits.stock_limits`."""
        return stock_limits(groups, depth)


class Vllm(Stock):
    """As `Stock`: vLLM reads the same configurations. Feed-forward widths are multiples of 16."""

    def limits(self, groups: Groups, depth: bool | str = False) -> Limited:
        """The limits of `Stock`, and widths that kernels of half precision take."""
        found = super().limits(groups, depth)
        rounded = {
            g.name: lcm(16, found.round_to.get(g.name, 1))
            for g in groups.prunable
            if g.kind != "heads" and g.name not in found.exclude
        }
        return replace(
            found,
            round_to={**found.round_to, **rounded},
            told=(*found.told, "feed-forward widths are multiples of 16"),
        )


def _auto(folder: Path) -> str:
    """The auto class to load a folder with."""
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = [name for name in content.get("auto_map", {}) if name != "AutoModel"]
    return str(named[0] if named else content["architectures"][0])
