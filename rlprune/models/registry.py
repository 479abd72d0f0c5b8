"""The registry behind ``models.create``: one name, one builder."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from rlprune.errors import ConfigError
from rlprune.locate import locate

Builder = Callable[..., nn.Module]
_B = TypeVar("_B", bound=Builder)

_BUILDERS: dict[str, Builder] = {}
TORCHVISION = "torchvision/"
TIMM = "timm.create_model"


def register(name: str) -> Callable[[_B], _B]:
    """Add a builder to the registry.

    Args:
        name: What users write in ``model.name``.

    Returns:
        A decorator for ``builder(num_classes, **kwargs) -> nn.Module``.

    Raises:
        ConfigError: The name is taken by another builder, or holds a dot or a slash.
    """
    if "." in name or "/" in name:
        raise ConfigError(f"model name {name!r} may hold neither '.' nor '/'")

    def add(builder: _B) -> _B:
        if name in _BUILDERS and _BUILDERS[name] is not builder:
            raise ConfigError(f"model name {name!r} is already registered")
        _BUILDERS[name] = builder
        return builder

    return add


def names() -> tuple[str, ...]:
    """Registered names, sorted; ``torchvision/<name>`` and dotted paths work besides them."""
    _load_builtin()
    return tuple(sorted(_BUILDERS))


def parameters(name: str) -> frozenset[str]:
    """Names of the arguments that a builder takes; none where Python cannot tell."""
    _load_builtin()
    builder = _BUILDERS.get(name)
    if builder is None and "." in name and not name.startswith(TORCHVISION):
        builder = _resolve(name)
    try:
        return frozenset(inspect.signature(builder).parameters) if builder else frozenset()
    except (TypeError, ValueError):
        return frozenset()


def create(
    name: str | None = None,
    *,
    num_classes: int | None = None,
    weights: str | None = None,
    seed: int | None = None,
    _target_: str | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build a network.

    Args:
        name: A registered name (``resnet56``), ``torchvision/<model>`` or a dotted path to a
            callable that returns a module (``my_pkg.nets.make``).
        num_classes: Number of outputs; None takes the builder's own default. A dotted path gets
            it only when its signature has a ``num_classes`` parameter.
        weights: Pretrained weights, of torchvision's models and ``timm.create_model`` only:
            ``"DEFAULT"`` or the name of a weight set (of timm: its tag). A head of another size
            is replaced by a fresh one.
        seed: Seed of the initial weights; the global generator is left as it was. None draws
            from the global generator.
        _target_: Dotted path, Hydra's spelling for ``name``.
        **kwargs: Passed to the builder (``in_channels=1``, ...); None takes its default.

    Returns:
        The network in train mode on the CPU.

    Raises:
        ConfigError: The name is unknown (near matches are listed), or the builder refuses its
            arguments.
    """
    if (name is None) == (_target_ is None):
        raise ConfigError(
            f"models.create needs exactly one of name and _target_, got name={name!r}, "
            f"_target_={_target_!r}"
        )
    wanted = str(name if name is not None else _target_)
    if seed is None:
        return _build(wanted, num_classes, weights, kwargs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build(wanted, num_classes, weights, kwargs)


def _build(name: str, num_classes: int | None, weights: str | None, kwargs: dict) -> nn.Module:
    if name.startswith(TORCHVISION):
        from rlprune.models.torchvision_models import create_torchvision

        return create_torchvision(name[len(TORCHVISION) :], num_classes, weights, kwargs)
    if weights is not None and name == TIMM:
        tag = "" if weights == "DEFAULT" else f".{weights}"
        kwargs = {**kwargs, "model_name": f"{kwargs.get('model_name')}{tag}", "pretrained": True}
    elif weights is not None:
        raise ConfigError(
            f"weights={weights!r}: only torchvision's and timm's models have downloadable weights; "
            f"give {name!r} a file with checkpoint= instead"
        )
    if "." in name:
        return _call(_resolve(name), name, num_classes, kwargs)
    _load_builtin()
    if name not in _BUILDERS:
        raise _unknown(name)
    return _call(_BUILDERS[name], name, num_classes, kwargs)


def _call(builder: Builder, name: str, num_classes: int | None, kwargs: dict) -> nn.Module:
    try:
        signature: inspect.Signature | None = inspect.signature(builder)
    except (TypeError, ValueError):
        signature = None
    arguments = dict(kwargs)
    if signature is not None:
        parameters = signature.parameters.values()
        defaulted = {p.name for p in parameters if p.default not in (None, inspect.Parameter.empty)}
        arguments = {k: v for k, v in arguments.items() if v is not None or k not in defaulted}
        open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        if num_classes is not None and (open_ended or "num_classes" in signature.parameters):
            arguments["num_classes"] = num_classes
        try:
            signature.bind(**arguments)
        except TypeError as error:
            raise ConfigError(
                f"model {name!r} cannot be built with {arguments}: {error}; its signature is "
                f"{signature}"
            ) from error
    model = builder(**arguments)
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"model {name!r} returned {type(model).__name__}, expected a torch.nn.Module"
        )
    return model


def _resolve(path: str) -> Builder:
    target = locate(path)
    if not callable(target):
        raise ConfigError(f"model {path!r} is a {type(target).__name__}, expected a callable")
    return target


def _unknown(name: str) -> ConfigError:
    from rlprune.models.torchvision_models import near_torchvision

    near = difflib.get_close_matches(name, list(_BUILDERS), n=3)
    near += [TORCHVISION + other for other in near_torchvision(name)]
    hint = f"did you mean {', '.join(near)}? " if near else ""
    return ConfigError(
        f"unknown model {name!r}; {hint}Registered: {', '.join(sorted(_BUILDERS))}; any "
        "torchvision classifier as torchvision/<name>, any callable of yours as package.module.name"
    )


def _load_builtin() -> None:
    from rlprune.models import (  # noqa: F401
        alexnet,
        resnet18,
        resnet_cifar,
        segmentation,
        small,
        text,
        vgg,
    )
