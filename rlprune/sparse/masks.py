"""Keeping zeros zero while a network is trained."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils import parametrize

from rlprune.sparse.layers import layers


class Mask(nn.Module):
    """Multiplies a weight by a fixed mask; its zeros get no gradient and stay zero.

    Args:
        mask: Of the weight's shape, True where the weight stays.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """The masked weight."""
        return weight * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What is stored when the weight is assigned."""
        return weight


def hold(model: nn.Module, masks: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Hold a network's zeros through training, in place.

    ``torch.nn.utils.parametrize`` computes every weight as weight times mask, so any optimiser and
    any training loop keeps them; :func:`release` makes an ordinary network again.

    Args:
        model: The network.
        masks: By layer path, of the weight's shape; today's non-zeros when None.

    Returns:
        The network itself.
    """
    for path, layer in layers(model)[0].items():
        if parametrize.is_parametrized(layer.module, "weight"):
            continue
        mask = layer.weight.detach() != 0 if masks is None else masks.get(path)
        if mask is not None and not bool(mask.all()):
            parametrize.register_parametrization(layer.module, "weight", Mask(mask))
    return model


def release(model: nn.Module) -> nn.Module:
    """Write held zeros into the weights and remove the masks, in place; returns the network."""
    for module in model.modules():
        if not _is_held(module):
            continue
        # Copies of a module share the class that computes its weight; this one gets its own.
        kind = type(module)
        module.__class__ = type(kind.__name__, kind.__bases__, dict(kind.__dict__))
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return model


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by the names they have without masks; held weights with zeros."""
    held = {path for path, module in model.named_modules() if _is_held(module)}
    found: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        path, _, rest = name.partition(".parametrizations.weight.")
        if path not in held:
            found[name] = tensor
        elif rest == "original":
            weight = model.get_submodule(path).weight
            assert isinstance(weight, Tensor)
            found[f"{path}.weight" if path else "weight"] = weight
    return found


def _is_held(module: nn.Module) -> bool:
    if not parametrize.is_parametrized(module, "weight"):
        return False
    return any(isinstance(part, Mask) for part in module.parametrizations["weight"])  # type: ignore[index]
