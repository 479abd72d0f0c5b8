"""Zeros inside tensors beside a network that is really smaller, at equal accuracy."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlprune.budgets import count_macs, count_nonzeros, count_params
from rlprune.budgets.latency import LatencyMeter, LatencySettings
from rlprune.data import Data
from rlprune.errors import ConfigError
from rlprune.files import plain, write_json, write_tensors
from rlprune.identity import digest
from rlprune.inputs import batch_of
from rlprune.options import check_types
from rlprune.run.defaults import filled_in
from rlprune.run.placing import place
from rlprune.run.pruning import launch
from rlprune.run.schedule import ScheduleSpec
from rlprune.run.spec import RunSpec
from rlprune.sparse import METHODS, Pattern, compressed, hold, release, save_sparse, sparsify
from rlprune.training import FineTune, Part, evaluate, finetune

log = logging.getLogger(__name__)

COMPACTED = "compacted"
_SMALLER = {"name": "uniform", "anchor": "sensitivity"}


@dataclass(frozen=True)
class SparseSpec:
    """What is asked of ``rlprune sparsify``.

    Attributes:
        sparsity: Share of zeros in linear layers and convolutions; n:m patterns have their own.
        method: See :func:`rlprune.sparsify`.
        patterns: Each makes a network; the first one is the result.
        scope: See :func:`rlprune.sparsify`.
        exclude: Globs of layers to leave dense.
        images: Calibration samples.
        compact: Shares of the parameters of the compacted networks, of which the smallest that is
            as accurate as the result is shown; none where empty.
    """

    sparsity: float = 0.9
    method: str = "magnitude"
    patterns: tuple[str, ...] = ("unstructured", "2:4")
    scope: str = "global"
    exclude: tuple[str, ...] = ()
    images: int = 512
    compact: tuple[float, ...] = (0.5, 0.35, 0.25, 0.15, 0.1)

    def __post_init__(self) -> None:
        """Check every field."""
        check_types(self, "sparse")
        if not self.patterns:
            raise ConfigError("sparse.patterns is empty; give at least one, as in [unstructured]")
        if self.method not in METHODS:
            raise ConfigError(f"sparse.method={self.method!r}: choose of {', '.join(METHODS)}")
        for pattern in self.patterns:
            Pattern.parse(pattern)
        if not all(0 < share < 1 for share in self.compact):
            raise ConfigError(f"sparse.compact={list(self.compact)}: give shares in (0, 1)")


@dataclass
class _Made:
    """A network of the table, with what its row says before anything is measured."""

    name: str
    network: nn.Module
    path: Path
    runs: nn.Module | None
    note: str = ""


class Sparsifying:
    """Makes sparse and compacted networks of one dense network, and measures them all.

    Every network gets the same fine-tuning. What is trained is kept in the folder, and taken from
    there when everything that it depends on is the same.

    Args:
        spec: Fine-tuning, schedule, latency, seed and compaction, as of a run.
        sparse: What is asked for.
        model: The dense network; not changed.
        example_inputs: What it is called with.
        data: Training, held-out and test samples.
        folder: Where files go.
    """

    def __init__(
        self,
        spec: RunSpec,
        sparse: SparseSpec,
        model: nn.Module,
        example_inputs: Any,
        data: Data,
        folder: Path,
    ) -> None:
        self.spec, self.sparse, self.data, self.folder = filled_in(spec, data), sparse, data, folder
        self._asked = spec
        self.dense, self.inputs = place(model, example_inputs, spec.device)
        self.device = next(self.dense.parameters()).device
        if spec.schedule.name != "oneshot" and not self.recipe.epochs:
            raise ConfigError(
                f"schedule={spec.schedule.name} makes zeros between epochs of fine-tuning, and "
                "finetune= is none"
            )

    @property
    def recipe(self) -> FineTune:
        """The fine-tuning of every network."""
        recipe = self.spec.finetune
        assert not isinstance(recipe, str)
        return recipe or FineTune(epochs=0)

    def run(self) -> dict[str, Any]:
        """Make, measure, and write ``sparsity.json``, ``.md`` and ``.html``.

        Returns:
            The content of ``sparsity.json``.
        """
        from rlprune.report import sparsity as report

        made = [self._dense_row()]
        for pattern in self.sparse.patterns:
            made += self._sparse_rows(pattern)
        made += self._compacted_row(made[1].network)
        table = {
            "metric": self.data.task.metric.__dict__,
            "rows": [self._measured(one) for one in made],
            "latency": {**vars(self._meter.settings), "threads": torch.get_num_threads()},
            "epochs": self.recipe.epochs,
            "schedule": vars(self.spec.schedule),
            "asked": vars(self.sparse),
        }
        table = plain(table)
        write_json(self.folder / report.FILE, table)
        report.write(self.folder, table)
        return table

    def sparse_network(self, pattern: str) -> nn.Module:
        """The dense network with zeros in a pattern, trained as the schedule says."""
        schedule, recipe, asked = self.spec.schedule, self.recipe, self.sparse
        fixed = Pattern.parse(pattern).sparsity
        rounds = 1 if fixed is not None or schedule.name == "oneshot" else schedule.rounds
        cause = digest([asked, pattern, schedule, recipe, self.spec.seed, self.dense])[:10]
        scratch = self.folder / "training" / f"{_slug(pattern)}-{cause}"
        samples = None if asked.method == "magnitude" else self.data.calibration(asked.images)
        network, done = self.dense, 0
        for number in range(1, rounds + 1):
            left = 1 - asked.sparsity
            epochs = recipe.epochs
            if rounds > 1:
                left = schedule.limit(1.0, left, number)
                epochs = schedule.share(recipe.epochs, number)
            network = sparsify(
                network, self.inputs, 1 - left, asked.method, pattern, samples,
                scope=asked.scope, exclude=asked.exclude, progress=self.spec.progress,
            )  # fmt: skip
            if epochs:
                trained = finetune(
                    hold(network),
                    self.dense,
                    self.data,
                    replace(recipe, epochs=epochs),
                    seed=self.spec.seed,
                    checkpoint_dir=scratch / f"{number:02d}",
                    progress=self.spec.progress,
                    device=self.device,
                    part=Part(done, recipe.epochs),
                )
                network = release(trained.model)
                done += epochs
        return network.eval()

    def compacted(self, bar: float) -> tuple[nn.Module, Path, str] | None:
        """The smallest of the compacted networks that is as accurate as a bar, or the best one.

        Args:
            bar: Score on held-out samples.

        Returns:
            The network, the file of its weights, and what to say of it.
        """
        shares = sorted(self.sparse.compact, reverse=True)
        if not shares:
            return None
        limits: Any = shares if len(shares) > 1 else shares[0]
        spec = replace(
            self._asked, budgets={"params": limits}, agent=_SMALLER, exports=(),
            schedule=ScheduleSpec(), evaluations=1, front_later=1.0,
            stages=("search", "finetune"), out_dir=self.folder / COMPACTED, redo=True,
        )  # fmt: skip
        found = launch(spec, self.dense, self.inputs, data=self.data)
        best: tuple[float, nn.Module, Path] | None = None
        for result in found.front or (found,):
            assert result.model is not None
            assert result.out_dir is not None
            score = self._held(result.model)
            if best is None or score >= bar or score > best[0]:
                best = score, result.model, result.out_dir / "model.safetensors"
        assert best is not None
        note = "" if best[0] >= bar else "none of them is as accurate"
        return best[1], best[2], note

    def _dense_row(self) -> _Made:
        path = self.folder / "dense.safetensors"
        write_tensors(path, self.dense.state_dict())
        return _Made("dense", self.dense, path, self.dense)

    def _sparse_rows(self, pattern: str) -> list[_Made]:
        network = self.sparse_network(pattern)
        stem = self.folder / _slug(pattern)
        write_tensors(stem.with_suffix(".dense.safetensors"), network.state_dict())
        save_sparse(network, stem.with_suffix(".safetensors"))
        run = compressed(network)
        needs = "" if self.device.type == "cuda" else "sparse tensor cores need a GPU"
        fixed = Pattern.parse(pattern).sparsity is not None
        return [
            _Made(f"{pattern}, zeros stored", network, stem.with_suffix(".dense.safetensors"),
                  network),
            _Made(f"{pattern}, compressed", network, stem.with_suffix(".safetensors"), run,
                  needs if fixed else "run as compressed rows"),
        ]  # fmt: skip

    def _compacted_row(self, sparse: nn.Module) -> list[_Made]:
        found = self.compacted(self._held(sparse))
        if found is None:
            return []
        network, path, note = found
        share = count_params(network) / count_params(self.dense)
        return [_Made(f"compacted to {100 * share:.0f} %", network, path, network, note)]

    def _measured(self, made: _Made) -> dict[str, Any]:
        """One row: what a network holds, takes on disk and on the clock, and how good it is."""
        log.info("measuring: %s", made.name)
        metric, network = self.data.task.metric, made.network
        row: dict[str, Any] = {
            "name": made.name,
            "note": made.note,
            "bytes": made.path.stat().st_size,
            "params": int(count_params(network)),
            "nonzeros": int(count_nonzeros(network)),
            "macs": int(count_macs(network, self.inputs)),
            "holdout": self._quality(network, self.data.holdout_batches)[metric.name],
        }
        if self.data.has_test:
            row["test"] = self._quality(network, self.data.test_batches)[metric.name]
        if made.runs is not None:
            row["ms"] = self._meter(made.runs, self._meter.inputs)
        return row

    def _held(self, network: nn.Module) -> float:
        metric = self.data.task.metric
        return metric.score(self._quality(network, self.data.holdout_batches)[metric.name])

    def _quality(self, network: nn.Module, batches: Callable[..., Any]) -> Mapping[str, float]:
        return evaluate(
            network, batches(device=self.device), task=self.data.task, device=self.device
        ).values

    @cached_property
    def _meter(self) -> LatencyMeter:
        timing = self.spec.latency
        settings = {**vars(timing), "device": timing.device or str(self.device)}
        inputs = batch_of(self.inputs, timing.batch_size)
        return LatencyMeter(self.dense, inputs, LatencySettings(**settings))


def _slug(pattern: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", pattern)
