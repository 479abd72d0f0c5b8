"""GGUF as an export: which widths llama.cpp takes, and the file."""

from __future__ import annotations

from typing import Any

from rlprune.export import Format, Handover, Limited
from rlprune.integrations.gguf.writing import BLOCK, check_family, package, save_gguf
from rlprune.integrations.hf.loading import tokenizer_of
from rlprune.space.decision import LAYERS
from rlprune.structure import Groups

FILE = "model.gguf"


class Gguf(Format):
    """A GGUF file; heads and feed-forward widths may differ from layer to layer."""

    block = BLOCK

    def limits(self, groups: Groups, depth: bool | str = False) -> Limited:
        """Rows of every matrix are whole blocks of weights; layers go whole.

        Raises:
            ConfigError: the network is none of the Llama family, or the package is not there.
        """
        package()
        check_family(groups.model)
        told = [
            f"heads times their size and feed-forward widths are multiples of {self.block}, the "
            "block of llama.cpp's quantised types"
        ]
        if depth:
            told.append("whole layers may go, not their feed-forward part alone")
        return Limited(
            round_to={group.name: self.block for group in groups.prunable},
            depth=LAYERS,
            told=tuple(told),
        )

    def write(self, handover: Handover) -> dict[str, Any]:
        """See `save_gguf`; matrices in half precision, to be quantised by llama.cpp."""
        tokenizer = tokenizer_of(handover.source)
        found = save_gguf(handover.network, handover.folder / FILE, tokenizer)
        return {"file": FILE, **found, "use": f"llama-cli -m {(handover.folder / FILE).as_posix()}"}


class GgufK(Gguf):
    """A GGUF file for the k-quants, whose blocks hold 256 weights."""

    block = 256
