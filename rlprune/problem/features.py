"""What the last linear layer of a network reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from rlprune.errors import ConfigError
from rlprune.observe import Recorder, Site


def last_linear(network: nn.Module) -> str:
    """Path of the last linear layer of a network, by registration order.

    Raises:
        ConfigError: There is none.
    """
    found = [path for path, part in network.named_modules() if isinstance(part, nn.Linear)]
    if not found:
        raise ConfigError("quality 'features' needs a linear layer at the end; choose 'kl'")
    return found[-1]


@contextmanager
def features_seen(network: nn.Module, wanted: bool = True) -> Iterator[list[Tensor]]:
    """The inputs of the last linear layer, one ``[samples, width]`` float32 per call, as they pass.

    Args:
        network: The network that will run.
        wanted: Whether to look at all; otherwise the list stays empty.

    Raises:
        ConfigError: The network has no linear layer.
    """
    seen: list[Tensor] = []
    if not wanted:
        yield seen
        return
    site = Site(last_linear(network), "input")
    with Recorder(network, {site: lambda found: seen.append(found.value.flatten(1).float())}):
        yield seen
