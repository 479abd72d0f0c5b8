"""Networks of transformers whose layers differ in width. Needs torch and transformers, no more.

``config.pruned`` says what the architecture's own configuration cannot: shapes of tensors by name,
integers of modules, and the modules in whose place nothing runs. A class ``PrunedX`` is
transformers' class ``X``, built as its configuration says and then cut to those shapes.
"""

from typing import Any

import torch
import transformers
from torch import Tensor, nn


class Zeros(nn.Module):
    """Returns zeros of its first tensor argument's shape, type and layout.

    Attributes:
        nones: how many Nones follow the tensor where the replaced module returned a tuple; -1
            where it returned a tensor.
    """

    def __init__(self, nones: int = -1) -> None:
        super().__init__()
        self.nones = nones

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Zeros like the first tensor among the arguments."""
        zeros = torch.zeros_like(_first(args, kwargs))
        return zeros if self.nones < 0 else (zeros, *[None] * self.nones)


class Skip(nn.Module):
    """Returns its first tensor argument."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The first tensor among the arguments, itself."""
        return _first(args, kwargs)


def _first(args: tuple, kwargs: dict) -> Tensor:
    return next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))


class Pruned:
    """What a ``PrunedX`` adds to transformers' class ``X``; comes before it among the bases."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        cut(self, config.pruned)  # type: ignore[arg-type]

    @classmethod
    def is_custom_code(cls) -> bool:
        """No: transformers reads and writes the weights' names as those of the class ``X``."""
        return False


def cut(model: nn.Module, pruned: dict) -> None:
    """Give the modules of a freshly built network the sizes that ``config.pruned`` names.

    Args:
        model: the network, or the base of the one that the names belong to.
        pruned: ``tensors`` (name -> shape), ``attributes`` (module -> name -> value), ``stand_ins``
            (module -> arguments of `Zeros`, or null for `Skip`).
    """
    prefix = getattr(model, "base_model_prefix", "") + "."
    own = {name for name, _ in model.named_modules()}

    def local(name: str) -> tuple[nn.Module, str] | None:
        path, _, last = name.rpartition(".")
        if path not in own and name.startswith(prefix):
            path = path[len(prefix) :]
        return (model.get_submodule(path), last) if path in own else None

    for path, nones in pruned["stand_ins"].items():
        if (place := local(path)) is not None:
            setattr(*place, Skip() if nones is None else Zeros(nones))
    smaller: dict[int, nn.Parameter] = {}
    for name, shape in pruned["tensors"].items():
        if (place := local(name)) is None:
            continue
        module, last = place
        tensor = getattr(module, last)
        if isinstance(tensor, nn.Parameter):
            if id(tensor) not in smaller:
                smaller[id(tensor)] = nn.Parameter(tensor.new_empty(shape), tensor.requires_grad)
            setattr(module, last, smaller[id(tensor)])
        else:
            setattr(module, last, tensor.new_empty(shape))
    for path, values in pruned["attributes"].items():
        if (place := local(f"{path}.")) is not None:
            for name, value in values.items():
                setattr(place[0], name, tuple(value) if isinstance(value, list) else value)


def __getattr__(name: str) -> type:
    """The class ``PrunedX``, made of transformers' class ``X`` when it is asked for."""
    dense = getattr(transformers, name[len("Pruned") :], None) if name[:6] == "Pruned" else None
    if dense is None:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    # of the same name: transformers looks up the names of weights by it
    kind = type(
        dense.__name__, (Pruned, dense), {"__module__": __name__, "__doc__": Pruned.__doc__}
    )
    globals()[name] = kind
    return kind
