"""Fine-tuning in benchmarks: one recipe for all, each plan once, the test split read once."""

from __future__ import annotations

import logging
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from rlprune.batches import Batch, split
from rlprune.bench.workbench import Workbench
from rlprune.data import WHOLE, Data, Share
from rlprune.errors import ConfigError
from rlprune.files import plain, read_json, write_json
from rlprune.identity import digest
from rlprune.inputs import to_device
from rlprune.tasks import Metric
from rlprune.training import evaluate, finetune

log = logging.getLogger(__name__)


class ShortEpochs(Data):
    """The same data with fewer images per epoch, drawn anew from the training split each time.

    Args:
        data: The data.
        images: Images per epoch; None takes the whole training split.
        held: Held-out samples ``(inputs, labels)`` in place of the data's own.
    """

    def __init__(self, data: Data, images: int | None, held: Batch | None = None) -> None:
        self.__dict__.update(data.__dict__)
        self.images = data.train_size if images is None else min(images, data.train_size)
        self._held = held

    def steps_per_epoch(self, batch_size: int) -> int:
        """Number of batches that ``train_batches`` yields."""
        return max(1, self.images // batch_size)

    def holdout_batches(
        self,
        batch_size: int = 512,
        *,
        device: torch.device | str = "cpu",
        share: Share = WHOLE,
    ) -> Iterator[Batch]:
        """Held-out samples in a fixed order."""
        if self._held is None:
            yield from super().holdout_batches(batch_size, device=device, share=share)
            return
        for inputs, labels in split(self._held, batch_size)[share[0] :: share[1]]:
            assert labels is not None
            yield to_device(inputs, device), labels.to(device)

    def identity(self) -> dict[str, Any]:
        """As the whole data, with what an epoch and the measurement see of it."""
        return {**super().identity(), "images": self.images, "held": self._held}

    def __repr__(self) -> str:
        """As the whole data, with the images per epoch."""
        return f"{super().__repr__()[:-1]}, images_per_epoch={self.images})"


def shortened(data: Data, images: int | None) -> Data:
    """The data with ``images`` per epoch; all of it for None."""
    return data if images is None else ShortEpochs(data, images)


def tuned(bench: Workbench, network: nn.Module) -> dict[str, Any]:
    """Fine-tune a compacted network with every seed asked for and measure it before and after.

    Equal networks are tuned once per seed: results are kept in ``tuned/`` under a name made of
    everything they depend on. An interrupted training is resumed.

    Args:
        bench: The problem, with the recipe.
        network: The compacted, compensated network; not changed.

    Returns:
        The task's metric, held out and on the test split, ``before`` and ``after`` (the mean of all
        seeds), ``runs``: by seed the same, the epoch that was kept, and the seconds; and
        ``recipe``, see `recipe_id`.
    """
    found = [_tuned(bench, network, seed) for seed in finetune_seeds(bench.options)]
    runs = [
        {"seed": run["seed"], **run["after"], **{k: run[k] for k in ("best_epoch", "seconds")}}
        for run in found
    ]
    return {
        "before": found[0]["before"],
        "after": {split: _mean([run[split] for run in runs]) for split in found[0]["after"]},
        "runs": runs,
        "recipe": recipe_id(bench),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def recipe_id(bench: Workbench) -> str:
    """Digest of all that decides a fine-tuning but the network."""
    return digest({**_causes(bench), "seeds": finetune_seeds(bench.options)})[:16]


def _causes(bench: Workbench) -> dict[str, Any]:
    data = shortened(bench.data, bench.options["finetune_images"])
    return {"recipe": bench.recipe, "data": data}


def finetune_seeds(options: Mapping[str, Any]) -> list[int]:
    """Seeds of the fine-tuning that a configuration asks for, each once.

    Args:
        options: The ``bench`` part of the configuration.

    Raises:
        ConfigError: There is none.
    """
    seeds = [int(seed) for seed in dict.fromkeys(options["finetune_seeds"])]
    if not seeds:
        raise ConfigError("bench.finetune_seeds is empty; give one seed at least, e.g. [0]")
    return seeds


def _tuned(bench: Workbench, network: nn.Module, seed: int) -> dict[str, Any]:
    job = bench.job
    data = shortened(bench.data, bench.options["finetune_images"])
    causes = {
        "network": network,
        "teacher": job.dense,
        **_causes(bench),
        "seed": seed,
    }
    path = bench.folder / "tuned" / f"{digest(causes)[:16]}.json"
    known = read_json(path)
    if known is not None:
        return dict(known)
    log.info("%s: fine-tuning, %d epochs, seed %d", bench.name, bench.recipe.epochs, seed)
    started = time.perf_counter()
    scratch = path.with_suffix(".training")
    result = finetune(
        network,
        job.dense,
        data,
        bench.recipe,
        seed=seed,
        checkpoint_dir=scratch,
        device=job.device,
    )
    content = plain(
        {
            "before": measured(bench, network),
            "after": measured(bench, result.model),
            "best_epoch": result.best_epoch,
            "seconds": time.perf_counter() - started,
            "seed": seed,
        }
    )
    write_json(path, content)
    shutil.rmtree(scratch, ignore_errors=True)
    return dict(content)


def dense_measured(bench: Workbench) -> dict[str, float | None]:
    """Held-out and test metric of the dense network, measured once."""
    path = bench.folder / "dense.json"
    identity = digest({"network": bench.job.dense, "data": bench.data})
    known = read_json(path) or {}
    if known.get("identity") != identity:
        known = {"identity": identity, "measured": measured(bench, bench.job.dense)}
        write_json(path, known)
    return dict(known["measured"])


def measured(bench: Workbench, network: nn.Module) -> dict[str, float | None]:
    """The task's metric on the held-out and on the test split; None without a test split."""
    device, data = bench.job.device, bench.data
    task, name = data.task, data.task.metric.name

    def value(batches: Iterator[Batch]) -> float:
        return evaluate(network, batches, task=task, device=device)[name]

    held = value(data.holdout_batches(device=device))
    test = value(data.test_batches(device=device)) if data.has_test else None
    return {"holdout": held, "test": test}


def shown(values: Mapping[str, float | None], metric: Metric) -> str:
    """What was measured, as text."""
    return ", ".join(f"{metric.show(v)} {split}" for split, v in values.items() if v is not None)
