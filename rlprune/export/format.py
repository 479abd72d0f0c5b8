"""What a result is exported as: which networks a format can say, and how it writes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from rlprune.errors import ConfigError
from rlprune.export.programs import export
from rlprune.locate import locate
from rlprune.plan import Plan
from rlprune.plugins import Registry
from rlprune.structure import Groups


@dataclass(frozen=True)
class Limited:
    """What a format leaves of a network's decisions, in the words of ``structure``.

    Attributes:
        tie: globs of groups that have one width; several joined by ``|`` make one tie.
        round_to: names of groups -> multiples that their kept channels have to be.
        exclude: names of groups that stay whole.
        depth: whether branches may be dropped: any, those of whole layers, or none.
        told: what is limited and why, for people.
    """

    tie: tuple[str, ...] = ()
    round_to: Mapping[str, int] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    depth: bool | str = True
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class Handover:
    """A result on its way out.

    Attributes:
        network: the pruned network, the exporter's own.
        example_inputs: what it is called with.
        folder: the run folder.
        plan: what of the dense network was kept.
        source: folder of the hub's layout or hub name that the dense network came from; None where
            it came from elsewhere.
    """

    network: nn.Module
    example_inputs: Any
    folder: Path
    plan: Plan
    source: str | None = None


class Format:
    """A kind of export.

    One that takes every network only writes. Formats are found by name, as entry points of
    ``rlprune.exports``, or by dotted path.
    """

    def limits(self, groups: Groups, depth: bool | str = False) -> Limited:
        """What of a network's decisions the format can say.

        Args:
            groups: the dense network's groups.
            depth: whether branches may be dropped, as asked for.

        Raises:
            ConfigError: it cannot say this network at all.
        """
        return Limited()

    def write(self, handover: Handover) -> dict[str, Any]:
        """Write a network.

        Returns:
            ``{"file", ...}``, relative to the run folder, with ``"files"`` where there are more;
            ``{"error"}`` with the reason where it could not be written.
        """
        raise NotImplementedError


class Onnx(Format):
    """ONNX, checked by its reference evaluator."""

    name = "onnx"

    def write(self, handover: Handover) -> dict[str, Any]:
        """See `rlprune.export.export`."""
        return export(handover.network, handover.example_inputs, handover.folder, self.name)


class TorchExport(Onnx):
    """A torch.export program."""

    name = "torch_export"


class Standalone(Onnx):
    """A Python file of plain PyTorch code, and its weights."""

    name = "standalone"


FORMATS: Registry[type[Format] | str] = Registry("export", "rlprune.exports")
"""Formats by name: classes, or where they live (imported when asked for)."""

EVERYWHERE = ("onnx", "torch_export")
"""What is written where nobody asks for anything else."""

_HOMES: dict[str, type[Format] | str] = {
    "onnx": Onnx,
    "torch_export": TorchExport,
    "standalone": Standalone,
    "hf": "rlprune.integrations.hf.exporting.Stock",
    "hf_code": "rlprune.integrations.hf.exporting.WithCode",
    "vllm": "rlprune.integrations.hf.exporting.Vllm",
    "gguf": "rlprune.integrations.gguf.exporting.Gguf",
    "gguf_k": "rlprune.integrations.gguf.exporting.GgufK",
}
for _name, _home in _HOMES.items():
    FORMATS.register(_name)(_home)


def format_of(name: str) -> Format:
    """The format of a name.

    Raises:
        ConfigError: there is none, or it is no format.
    """
    found: Any = FORMATS.find(name)
    if isinstance(found, str):
        found = locate(found)
    made = found() if isinstance(found, type) else found
    if not isinstance(made, Format):
        raise ConfigError(f"export {name!r} is no rlprune.export.Format")
    return made
