"""The parts of a transformer that are looked at: residual stream, feed-forward units, heads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from rlprune.errors import StructureError
from rlprune.observe import Site

KINDS = ("residual", "ffn", "heads")
"""Kinds of sites, by the names that :func:`sites_of` takes."""


@dataclass(frozen=True)
class Layer:
    """One block of a transformer.

    Attributes:
        path: the block's module path.
        down: path of the second feed-forward projection; its weight holds the *values*, what it
            reads are the *coefficients* of the feed-forward units.
        up: path of the first projection; its weight holds the *keys*.
        gate: path of the gating projection where there is one; empty otherwise.
        attention: path of the attention's output projection; what it reads are the heads' answers,
            one after the other. Empty where there is none.
    """

    path: str
    down: str
    up: str
    gate: str = ""
    attention: str = ""

    def site(self, kind: str) -> Site | None:
        """Where the block's part of a kind can be seen; None where it has none."""
        if kind == "residual":
            return Site(self.path, "output")
        path = self.down if kind == "ffn" else self.attention
        return Site(path, "input") if path else None


def layers(model: nn.Module) -> list[Layer]:
    """The blocks of a transformer, first to last.

    The blocks are the longest list of modules of one class; where two lists are equally long (an
    encoder and a decoder) the one that holds the later modules. In a block the feed-forward
    network is what lies outside modules named after attention: its last projection back to the
    block's width is ``down``.

    Args:
        model: any network with such a list; it is only looked at.

    Raises:
        StructureError: There is no list of blocks with a feed-forward network.
    """
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and _uniform(module)
    ]
    found = [
        [layer for i, block in enumerate(blocks) if (layer := _layer(f"{name}.{i}", block))]
        for name, blocks in lists
    ]
    best = max(found, key=len, default=[])
    for candidate in found:
        best = candidate if len(candidate) == len(best) else best
    if not best:
        raise StructureError(
            f"{type(model).__name__} has no list of blocks with a feed-forward network; give "
            "sites by module path instead, such as 'encoder.3.fc2@input'"
        )
    return best


def sites_of(model: nn.Module, sites: str | Iterable[str | Site]) -> list[Site]:
    """Sites by kind ("residual", "ffn", "heads"), module path or pattern, in order, each once.

    Raises:
        ConfigError: A pattern matches nothing.
        StructureError: A kind was given and no blocks are found.
    """
    from rlprune.observe import expand

    found: dict[Site, None] = {}
    for item in [sites] if isinstance(sites, (str, Site)) else sites:
        if item in KINDS:
            places = (layer.site(str(item)) for layer in layers(model))
            found.update({place: None for place in places if place is not None})
        else:
            found.update(dict.fromkeys(expand(model, item)))
    return list(found)


def matrix(model: nn.Module, path: str) -> Tensor:
    """A projection's weight as ``[outputs, inputs]``, whichever way its layer stores it."""
    module = model.get_submodule(path)
    weight = module.get_parameter("weight").detach()
    return weight.T if _transposed(module) else weight


def _uniform(blocks: nn.ModuleList) -> bool:
    return len({type(block) for block in blocks}) == 1 and bool(list(blocks[0].children()))


def _layer(path: str, block: nn.Module) -> Layer | None:
    inside: list[tuple[str, nn.Module]] = []
    outside: list[tuple[str, nn.Module]] = []
    for name, module in block.named_modules():
        if _sizes(module) is not None:
            (inside if _in_attention(name, block) else outside).append((name, module))
    for place in range(len(outside) - 1, 0, -1):
        name, module = outside[place]
        wide, width = _sizes(module) or (0, 0)
        ups = [n for n, m in outside[:place] if _sizes(m) == (width, wide)]
        ups += [n for n, m in outside[place + 1 :] if _sizes(m) == (width, wide) != (wide, width)]
        if ups:
            gates = [n for n in ups if "gate" in n or n.rpartition(".")[2] in ("w1", "wi_0")]
            gate = (gates or ups[:1])[0] if len(ups) > 1 else ""
            up = next(n for n in ups if n != gate)
            return Layer(
                path, f"{path}.{name}", f"{path}.{up}", gate and f"{path}.{gate}",
                _output(path, inside, width),
            )  # fmt: skip
    return None


def _output(path: str, inside: list[tuple[str, nn.Module]], width: int) -> str:
    """The attention's last projection to the block's width that is neither query, key nor value."""
    leaves = [n for n, m in inside if (_sizes(m) or (0, 0))[1] == width and not _reads(n)]
    return f"{path}.{leaves[0]}" if leaves else ""


def _reads(name: str) -> bool:
    leaf = name.rpartition(".")[2].lower()
    return leaf.startswith(("q", "k", "v", "c_attn", "wqkv", "in_proj")) and leaf != "out_proj"


def _in_attention(name: str, block: nn.Module) -> bool:
    parts = name.split(".")[:-1]
    classes = [type(block.get_submodule(".".join(parts[: i + 1]))).__name__.lower()
               for i in range(len(parts))]  # fmt: skip
    return any(
        "attn" in text or "attention" in text for text in (*(p.lower() for p in parts), *classes)
    )


def _transposed(module: nn.Module) -> bool:
    return type(module).__name__ == "Conv1D"


def _sizes(module: nn.Module) -> tuple[int, int] | None:
    """Inputs and outputs of a projection; None for other modules."""
    weight = module._parameters.get("weight")
    if weight is None or weight.ndim != 2:
        return None
    if isinstance(module, nn.Linear):
        return int(weight.shape[1]), int(weight.shape[0])
    return (int(weight.shape[0]), int(weight.shape[1])) if _transposed(module) else None
