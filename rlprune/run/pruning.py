"""``prune()``: the whole job, from a dense network to a smaller one that meets every budget."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from rlprune.budgets import Budget, protected
from rlprune.callbacks import resolve as resolve_callbacks
from rlprune.data import Data
from rlprune.files import plain
from rlprune.problem import EvaluatorConfig
from rlprune.run.folder import RunFolder
from rlprune.run.front_run import prune_front
from rlprune.run.job import Job
from rlprune.run.result import PruneResult
from rlprune.run.schedule import ScheduleSpec
from rlprune.run.smallest import prune_smallest
from rlprune.run.spec import QualitySpec, RunSpec, StructureSpec
from rlprune.run.stages import Stages
from rlprune.training import FineTune


def prune(
    model: nn.Module,
    example_inputs: Any,
    *,
    budgets: Mapping[str, Any] | Sequence[Budget] | None = None,
    objective: str | None = RunSpec.objective,
    quality: QualitySpec | Mapping[str, Any] | None = None,
    data: Any = None,
    score: Callable[[nn.Module], float] | None = None,
    protect: Mapping[str, Any] | None = None,
    task: Any = RunSpec.task,
    agent: Any = RunSpec.agent,
    evaluations: int = RunSpec.evaluations,
    front_later: float = RunSpec.front_later,
    importance: Any = RunSpec.importance,
    compensation: Any = RunSpec.compensation,
    evaluator: EvaluatorConfig | Mapping[str, Any] | None = None,
    finetune: FineTune | Mapping[str, Any] | str | None = RunSpec.finetune,
    schedule: ScheduleSpec | Mapping[str, Any] | str | None = None,
    exclude: Sequence[str] = StructureSpec.exclude,
    min_width: int = StructureSpec.min_width,
    round_to: int | Mapping[str, int] = StructureSpec.round_to,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    tie: Sequence[str] = StructureSpec.tie,
    depth: bool | str = StructureSpec.depth,
    executor: Any = RunSpec.executor,
    workers: int | str | None = RunSpec.workers,
    device: str | None = RunSpec.device,
    seed: int = RunSpec.seed,
    out_dir: str | os.PathLike[str] | None = RunSpec.out_dir,
    factory: str | Mapping[str, Any] | None = RunSpec.factory,
    exports: Sequence[str] = RunSpec.exports,
    latency: Mapping[str, Any] | None = None,
    stages: Sequence[str] = RunSpec.stages,
    redo: bool = RunSpec.redo,
    progress: bool | None = RunSpec.progress,
    callbacks: Any = (),
) -> PruneResult:
    """Prune a network to budgets.

    Searches for the widths, removes the rest, fine-tunes, exports and reports. Every stage is
    recorded in ``out_dir``: calling again with the same arguments and the same folder goes on
    where an interrupted run was, with the result it would have had, and does nothing that is done.

    Args:
        model: The trained network; never changed.
        example_inputs: What it is called with: a tensor, a tuple of positional or a dict of
            keyword arguments.
        budgets: Name -> limit or :class:`rlprune.Budget`, for example
            ``{"macs": 0.5, "latency": rlprune.budgets.Latency(0.7)}``. All hold at once. One of
            them may have a list, as in ``{"macs": [0.7, 0.5, 0.3]}``: then the run finds a
            network for every limit, in fewer evaluations than as many runs would take.
        objective: Name of a budget whose value is made as small as possible, in place of quality as
            high as possible: ``objective="macs", quality={"max_drop": "1%"}``. Its own limit does
            not count; other budgets hold.
        quality: With an objective, how far the metric on held-out samples may fall after
            fine-tuning, see :class:`rlprune.run.QualitySpec`.
        data: Training, held-out and test samples: :class:`rlprune.Data`, its arguments as a
            mapping, or training samples alone (a pair of tensors, a data set, a loader).
        score: ``score(network) -> float``, higher is better; replaces the score on held-out data.
        protect: What must not be forgotten: class of the data -> the most the loss on its samples
            may be, ``{"cat": "110%"}`` of the dense network's; or budgets under names of their own,
            such as those of :func:`rlprune.analysis.protect` on concepts of source code. They
            bind the network before fine-tuning and the one that is handed over.
        task: What the network is for: ``image_classification``, ``text_classification``,
            ``language_modeling``, ``regression``, ``segmentation``, the dotted path of your own, a
            mapping with options, or a :class:`rlprune.tasks.Task`. None takes the data's, which
            infers it where that is obvious.
        agent: Search agent: a name, a mapping with ``name`` and options, or an agent's config.
        evaluations: Unique candidate evaluations of the search.
        front_later: With a list of limits, the evaluations of every limit searched after the
            first one, as a share of ``evaluations``.
        importance: Criterion that orders the units of a group: a name or a function. ``auto`` is
            ``obs`` where the result is compensated by least squares, else ``l1``.
        compensation: How surviving weights make up for the removed ones: a method, several in
            order, or None. ``auto`` is least squares, then BN statistics, where there is
            data; without fine-tuning, sequential least squares in between.
        evaluator: How candidates are scored: the settings, or names and values of some of them.
        finetune: The recipe, or names and values of some of it; None leaves the network as
            compensation left it. ``auto`` is ``FineTune()`` with the fields that the task asks for
            where there is data, and None without.
        schedule: ``oneshot``, or ``iterative``: rounds of pruning and fine-tuning, which share
            evaluations and epochs; or names and values, see :class:`rlprune.run.ScheduleSpec`.
        exclude: Globs of groups that stay whole.
        min_width: Fewest units of any group.
        round_to: Kept channels are multiples of it; a number, or globs to numbers.
        bounds: Globs to (lowest, highest) keep ratio.
        tie: Globs, or several joined by ``|``; the groups that one of them matches share one keep
            ratio.
        depth: Whether the search may drop whole residual branches; ``"layers"``: all branches of a
            layer at once.
        executor: Where candidates are measured: ``serial`` is this process, ``processes`` several
            of them, ``ray`` actors here or on a cluster; a name, a mapping with ``name`` and
            options, or an executor. Results are the same.
        workers: How many processes, ``auto`` for as many as there is room for; None takes the
            executor's own number.
        device: Where networks run; None stays where the model is, ``auto`` takes a GPU.
        seed: Decides every random choice.
        out_dir: The run folder; None keeps nothing on disk.
        factory: How :func:`rlprune.load` builds the dense network again: the dotted path of a
            function, or keyword arguments of ``rlprune.models.create``.
        exports: ``onnx``, ``torch_export`` and ``standalone`` (a Python file of plain PyTorch code
            beside its weights) take any result. ``hf`` (a stock configuration,
            uniform widths), ``vllm``, ``gguf`` (blocks of 32 weights; ``gguf_k`` of 256) limit the
            search to what they can say, which the report lists; ``hf_code`` takes any network of
            transformers, with a modelling file where it needs one. A dotted path of your own
            :class:`rlprune.export.Format`.
        latency: ``batch_size``, ``repeats``, ``threads`` ... of the report's measurement, see
            :class:`rlprune.run.TimingSpec`.
        stages: Which stages to run, of ``search``, ``finetune``, ``export``, ``report``; those
            before must have been run in ``out_dir``.
        redo: Run stages again whose settings differ from those recorded in ``out_dir``; without
            it that is an error.
        progress: Draw progress bars; None draws them on a terminal.
        callbacks: Told of evaluations, epochs and stages, and able to end the search: objects,
            classes or names, see :mod:`rlprune.callbacks`.

    Returns:
        The pruned network with its plan, costs, history and report. With a list of limits, that
        of the tightest one, which meets all of them; ``front`` then holds the result of every
        limit, loosest first.

    Raises:
        ConfigError: An argument is unknown or outside its range.
        InfeasibleBudgetError: No plan can meet the budgets; says which, and how near one comes.
        BudgetError: A budget function fails, or the final network breaks a budget.
        RlpruneError: Whatever else is wrong with the network, data or score; names it.
    """
    options = dict(locals())
    live = {name: options.pop(name) for name in _LIVE}
    return launch(RunSpec.of(**options), **live)


_LIVE = ("model", "example_inputs", "data", "score", "callbacks")


@contextmanager
def _telling(job: Job) -> Iterator[None]:
    """Tell callbacks that a run begins and ends."""
    kept = job.spec.out_dir is not None
    told = {"run": job.folder.path.name if kept else None, "settings": plain(job.settings)}
    with ExitStack() as stack:
        for callback in job.callbacks:
            stack.callback(callback.on_end)
            callback.on_start(told)
        yield


def _with_protected(spec: RunSpec, data: Data | None) -> RunSpec:
    """The specification with what is protected among its budgets."""
    if not spec.protect:
        return spec
    found = protected(
        spec.protect,
        None if data is None else data.task,
        None if data is None else data.calibration(spec.evaluator.calibration_images),
        None if data is None else data.class_names,
    )
    asked = spec.budgets
    both = {**asked, **found} if isinstance(asked, Mapping) else [*asked, *found.values()]
    return replace(spec, budgets=both, protect={})


def launch(
    spec: RunSpec,
    model: nn.Module,
    example_inputs: Any,
    *,
    data: Any = None,
    score: Callable[[nn.Module], float] | None = None,
    callbacks: Any = (),
    on_start: Callable[[], object] | None = None,
) -> PruneResult:
    """Run a specification: what :func:`prune` does with its keyword arguments.

    Args:
        spec: What is asked for.
        model: The trained network; never changed.
        example_inputs: What it is called with.
        data: As for :func:`prune`.
        score: Replaces the score on held-out data.
        callbacks: As for :func:`prune`.
        on_start: Called once the run folder is found to belong to this run, before any stage.

    Raises:
        ConfigError: Another process works in the run folder, or whatever is wrong with the options.
        RlpruneError: As :func:`prune`.
    """
    told = resolve_callbacks(callbacks)
    samples = None if data is None else Data.of(data).for_task(spec.task)
    spec = _with_protected(spec, samples)
    asked = spec.asked()
    with tempfile.TemporaryDirectory(prefix="rlprune-") as scratch:
        folder = RunFolder(scratch if spec.out_dir is None else spec.out_dir)
        job = Job.open(
            spec, model, example_inputs, data=samples, score=score, folder=folder, callbacks=told
        )
        with folder.lock(), _telling(job):
            if spec.objective is not None:
                return prune_smallest(job, on_start)
            if asked.varied is not None:
                return prune_front(job, asked, on_start)
            stages = Stages(job)
            if on_start is not None:
                on_start()
            return stages.run()
