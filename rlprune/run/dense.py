"""The pretrain stage: the dense network, loaded, downloaded, or trained once and kept."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlprune.data import Data
from rlprune.files import write_json
from rlprune.identity import describe, digest
from rlprune.locate import locate
from rlprune.locks import locked
from rlprune.models import create, load_checkpoint, save_weights
from rlprune.models.registry import parameters
from rlprune.run.placing import resolve_device
from rlprune.training import Pretrain, pretrain

log = logging.getLogger(__name__)

_RECIPE_FREE = ("checkpoint", "trained", "weights")


def factory_of(model: Mapping[str, Any], data: Data) -> dict[str, Any]:
    """The ``model`` part of a configuration as arguments of ``rlprune.models.create``.

    What the network has to know of its data (classes, features, vocabulary) is filled in where the
    builder takes it and the configuration leaves it open.
    """
    options = {key: value for key, value in model.items() if key not in _RECIPE_FREE}
    taken = parameters(str(options.get("name") or options.get("_target_")))
    for key, value in data.facts.items():
        if key in taken and options.get(key) is None:
            options[key] = value
    if data.num_classes is not None:
        options.setdefault("num_classes", data.num_classes)
    return options


def dense_from_config(
    config: Mapping[str, Any],
    data: Data,
    *,
    before_training: Callable[[nn.Module], object] | None = None,
) -> tuple[nn.Module, torch.device]:
    """The dense network of a composed configuration, see :func:`dense_network`.

    Args:
        config: As ``rlprune --cfg job`` prints it, checked by :meth:`RunSpec.from_config`.
        data: Its data, opened.
        before_training: As for :func:`dense_network`.

    Returns:
        The network, on the CPU, and the device of the run.
    """
    device = resolve_device(config["device"], nn.Identity())
    network = dense_network(
        config["model"],
        data,
        Pretrain.from_dict(config["pretrain"]),
        seed=config["dense_seed"],
        folder=Path(config["pretrained_dir"]),
        device=device,
        before_training=before_training,
    )
    return network, device


def dense_network(
    model: Mapping[str, Any],
    data: Data,
    recipe: Pretrain,
    *,
    seed: int,
    folder: Path,
    device: Any = None,
    progress: bool | None = None,
    before_training: Callable[[nn.Module], object] | None = None,
) -> nn.Module:
    """Build the dense network with trained weights.

    With ``model["checkpoint"]`` the file is loaded; with ``model["weights"]`` torchvision
    downloads them; with ``model["trained"]`` the factory's network has them; otherwise the network
    is trained, and its weights are kept in ``folder`` under
    a name made of everything they depend on, so that other runs find them. Runs that need the same
    network at the same time wait for the one that trains it.

    Args:
        model: The ``model`` part of a configuration.
        data: What to train on.
        recipe: How to train.
        seed: Initial weights and order of the samples.
        folder: Where trained weights are kept.
        device: Where to train.
        progress: Draw bars; None draws them on a terminal.
        before_training: Called with the untrained network where it has to be trained; what it
            raises is raised before any time is spent.

    Returns:
        The network on the CPU, in eval mode.
    """
    factory = factory_of(model, data)
    network = create(**factory, weights=model.get("weights"), seed=seed)
    if model.get("checkpoint"):
        log.info("dense network: %s", model["checkpoint"])
        return load_checkpoint(network, model["checkpoint"]).eval()
    if model.get("weights") or model.get("trained"):
        return network.eval()
    if recipe.epochs == 0:
        log.warning("the dense network has no checkpoint and pretrain.epochs is 0: untrained")
        return network.eval()
    causes = {
        "factory": factory,
        "target": locate(factory["_target_"]) if "_target_" in factory else None,
        "data": {key: part for key, part in data.identity().items() if key != "test"},
        "recipe": recipe,
        "seed": seed,
    }
    name = str(factory.get("name", factory.get("_target_"))).replace("/", "-")
    path = folder.expanduser() / f"{name}-{data.name}-{digest(causes)[:10]}.safetensors"
    with locked(path.with_suffix(".lock")):
        if path.is_file():
            log.info("dense network: %s", path)
            return load_checkpoint(network, path).eval()
        if before_training is not None:
            before_training(network)
        log.info("the dense network has no checkpoint: training it for %d epochs", recipe.epochs)
        scratch = path.with_suffix(".training")
        trained = pretrain(
            network, data, recipe, seed=seed, checkpoint_dir=scratch, progress=progress,
            device=device,
        )  # fmt: skip
        write_json(path.with_suffix(".json"), {**describe(causes), "holdout": trained.holdout})
        save_weights(trained.model, path)
        shutil.rmtree(scratch, ignore_errors=True)
        metric = data.task.metric
        log.info(
            "dense network: held-out %s %s, kept in %s",
            metric.label, metric.show(trained.holdout[metric.name]), path,
        )  # fmt: skip
        return load_checkpoint(network, path).eval()
