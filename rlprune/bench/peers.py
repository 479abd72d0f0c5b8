"""Other libraries on the same problem: pruned by their own rules, measured by rlprune's.

A peer's network is scored as it is, without compensation, on the samples that finalists of the
searches are scored on. Where its layers shrank as rlprune's groups do, the widths are scored once
more as a plan: rlprune's units and compensation at the peer's widths.
"""

from __future__ import annotations

import copy
import importlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.batches import cut
from rlprune.bench.cells import adherence
from rlprune.bench.tuning import recipe_id, tuned
from rlprune.bench.workbench import Workbench
from rlprune.budgets import ResolvedBudget
from rlprune.errors import ConfigError, RlpruneError
from rlprune.files import plain, read_json, write_json
from rlprune.problem import Quality, last_linear, qualities
from rlprune.run import over_limit, values_of

log = logging.getLogger(__name__)

_TAYLOR_IMAGES = 128


class PeerError(RlpruneError):
    """Another library is missing, or cannot prune this network."""


def planned(options: Mapping[str, Any]) -> list[str]:
    """The peers that a configuration asks for, each checked to be installed.

    Raises:
        ConfigError: A name is unknown.
        PeerError: A library is not installed.
    """
    for name in options["peers"]:
        if name not in PEERS:
            raise ConfigError(f"bench.peers: {name!r} is none of {', '.join(PEERS)}")
        _load(*_LIBRARIES[name.split("_")[0]])
    return list(options["peers"])


def run_peer(name: str, bench: Workbench) -> dict[str, Any]:
    """Let a peer prune the network, measure what it returns, and write its cell.

    Args:
        name: One of `PEERS`.
        bench: The problem.

    Returns:
        The content of the cell; with ``error`` in place of results where the peer failed.
    """
    path = bench.folder / "cells" / f"{name}.json"
    content = read_json(path)
    tune = bool(bench.options["finetune"])
    log.info("%s: %s, without a bar", bench.name, name)
    done = isinstance(content, dict) and content.get("identity") == bench.identity
    done = done and name not in bench.options["redo"]
    if done and ("error" in content or not tune or _tuned_so(content, bench)):
        return dict(content)
    started = time.perf_counter()
    base = {"label": name, "agent": {"name": name}, "evaluations": 0, "seed": 0, "peer": True}
    base["identity"] = bench.identity
    budgets = bench.budgets()
    try:
        network, unique = PEERS[name](bench, budgets)
        found = _measured(bench, budgets, network)
        found["unique"] = unique
        found["seconds"] = {"total": time.perf_counter() - started}
        if tune:
            found["tuned"] = tuned(bench, network)
        log.info("%s: quality %.4f, %.1f s", name, found["quality"], found["seconds"]["total"])
    except PeerError as error:
        log.warning("%s: %s", name, error)
        found = {"error": str(error)}
    content = plain({**base, **found})
    write_json(path, content)
    return dict(content)


def _tuned_so(content: Mapping[str, Any], bench: Workbench) -> bool:
    """Whether a peer's network was fine-tuned as it would be now."""
    return bool(content.get("tuned", {}).get("recipe") == recipe_id(bench))


def widths_of(bench: Workbench, network: nn.Module) -> list[int] | None:
    """The widths of rlprune's groups in a network that another library cut.

    Every dimension of every tensor holds units of one or more groups, and its size says how many
    are left of them together; the equations are solved one unknown at a time.

    Returns:
        Kept units per prunable group; None where the sizes do not follow the groups, or do not
        tell.
    """
    groups = bench.job.groups
    members: dict[tuple[str, int], dict[str, int]] = {}
    for group in groups.prunable:
        for part in groups.slices(group):
            found = members.setdefault((part.tensor, part.dim), {})
            found[group.name] = found.get(group.name, 0) + part.index.shape[1]
    equations = []
    for (name, dim), parts in members.items():
        tensor = _tensor(network, name)
        dense = groups.tensors[name].shape
        if tensor is None or tensor.ndim != len(dense):
            return None
        equations.append((parts, dense[dim], tensor.shape[dim]))
    widths = _solved(equations, {group.name: group.width for group in groups.prunable})
    if widths is None:
        return None
    legal = all(widths[group.name] in group.legal_widths() for group in groups.prunable)
    return [widths[group.name] for group in groups.prunable] if legal else None


def _solved(
    equations: Sequence[tuple[dict[str, int], int, int]], dense: Mapping[str, int]
) -> dict[str, int] | None:
    """Widths from ``(positions per unit by group, dense size, size)``; None without one answer."""
    known: dict[str, int] = {}
    for parts, before, after in equations:
        if before == after:
            known.update({name: dense[name] for name in parts})
    for _ in dense:
        for parts, before, after in equations:
            unknown = [name for name in parts if name not in known]
            if len(unknown) != 1:
                continue
            fixed = before - sum(each * dense[name] for name, each in parts.items())
            rest = after - fixed - sum(e * known[n] for n, e in parts.items() if n in known)
            known[unknown[0]], left = divmod(rest, parts[unknown[0]])
            if left:
                return None
    if len(known) < len(dense):
        return None
    for parts, before, after in equations:
        removed = sum(each * (dense[name] - known[name]) for name, each in parts.items())
        if before - removed != after:
            return None
    return known


def _tensor(network: nn.Module, name: str) -> Tensor | None:
    try:
        found = attrgetter(name)(network)
    except AttributeError:
        return None
    return found if isinstance(found, Tensor) else None


def _measured(
    bench: Workbench, budgets: Sequence[ResolvedBudget], network: nn.Module
) -> dict[str, Any]:
    job = bench.job
    quality, rescore = _qualities(bench)
    values = values_of(budgets, network, job.example_inputs)
    widths = widths_of(bench, network)
    found: dict[str, Any] = {
        "quality": rescore(copy.deepcopy(network)),
        "search_quality": quality(copy.deepcopy(network)),
        "budgets": adherence(budgets, values),
        "widths": None,
    }
    if widths is not None:
        names = [group.name for group in job.groups.prunable]
        found["widths"] = dict(zip(names, widths, strict=True))
        problem = bench.evaluator()
        found["quality_as_plan"] = problem.rescore(problem.space.plan(widths))
    return found


def _qualities(bench: Workbench) -> tuple[Quality, Quality]:
    job = bench.job
    return qualities(job.dense, job.data, None, job.spec.evaluator, job.calibration)


def _torch_pruning(
    bench: Workbench, budgets: Sequence[ResolvedBudget], taylor: bool
) -> tuple[nn.Module, int]:
    """Torch-Pruning's global ranking, stepped until every budget is met."""
    tp = _load(*_LIBRARIES["torch"])
    job, steps = bench.job, int(bench.options["peer_steps"])
    network = copy.deepcopy(job.dense)
    rank = tp.importance.GroupTaylorImportance if taylor else tp.importance.GroupMagnitudeImportance
    try:
        pruner = tp.pruner.BasePruner(
            network,
            job.example_inputs,
            importance=rank(),
            global_pruning=True,
            pruning_ratio=1.0,
            iterative_steps=steps,
            ignored_layers=[network.get_submodule(last_linear(network))],
        )
        for _ in range(steps):
            if taylor:
                _gradients(bench, network)
            pruner.step()
            network.zero_grad(set_to_none=True)
            if not over_limit(budgets, values_of(budgets, network, job.example_inputs)):
                return network.eval(), 0
    except (RlpruneError, RuntimeError, ValueError, IndexError, ZeroDivisionError) as error:
        text = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise PeerError(
            f"Torch-Pruning fails on this network: {type(error).__name__}: {text}"
        ) from error
    names = ", ".join(budget.name for budget in budgets)
    raise PeerError(f"Torch-Pruning does not reach the budgets ({names}) in {steps} steps")


def _gradients(bench: Workbench, network: nn.Module) -> None:
    """Gradients of the loss on calibration samples, in eval mode."""
    assert bench.job.calibration is not None
    inputs, labels = cut(bench.job.calibration, slice(_TAYLOR_IMAGES))
    task = bench.data.task
    network.eval().zero_grad(set_to_none=True)
    with torch.enable_grad():
        task.loss(task.rows(task.answer(network, inputs), labels, inputs)).backward()


def _fastnas(bench: Workbench, budgets: Sequence[ResolvedBudget]) -> tuple[nn.Module, int]:
    """NVIDIA ModelOpt's FastNAS with this problem's quality as its score function."""
    mtp = _load(*_LIBRARIES["fastnas"])
    job = bench.job
    known = {"macs": "flops", "params": "params"}
    unknown = [budget.name for budget in budgets if budget.name not in known]
    if unknown:
        raise PeerError(f"FastNAS takes MACs and parameters as constraints, not {unknown[0]}")
    quality, _ = _qualities(bench)
    scored = 0

    def score(network: nn.Module) -> float:
        nonlocal scored
        scored += 1
        return quality(network.eval())

    constraints = {known[b.name]: f"{100 * b.limit / b.dense:g}%" for b in budgets}
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            network, _ = mtp.prune(
                copy.deepcopy(job.dense),
                mode=[("fastnas", _divisors())],
                constraints=constraints,
                dummy_input=job.example_inputs,
                config={
                    "data_loader": [(job.calibration[0],)] if job.calibration is not None else [],
                    "score_func": score,
                    "checkpoint": None,
                    "verbose": False,
                },
            )
    except (RuntimeError, ValueError, AssertionError, AttributeError, TypeError) as error:
        text = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise PeerError(f"FastNAS fails on this network: {type(error).__name__}: {text}") from error
    return network.eval(), scored


def _divisors() -> dict[str, Any]:
    """Finest widths that suit the narrow layers of CIFAR networks."""
    step = {"channels_ratio": tuple(at / 16 for at in range(1, 17)), "channel_divisor": 4}
    return {"nn.Conv2d": {"*": step}, "nn.BatchNorm2d": {"*": {}}, "nn.Linear": {"*": {}}}


def _load(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PeerError(
            f"{package} cannot be imported ({error}); install it: pip install 'rlprune[bench]'"
        ) from error


Peer = Callable[[Workbench, Sequence[ResolvedBudget]], "tuple[nn.Module, int]"]

PEERS: dict[str, Peer] = {
    "torch_pruning_magnitude": lambda bench, budgets: _torch_pruning(bench, budgets, False),
    "torch_pruning_taylor": lambda bench, budgets: _torch_pruning(bench, budgets, True),
    "fastnas": _fastnas,
}
"""Peers by name: from a problem to a pruned network and the candidates that were scored."""

_LIBRARIES = {
    "torch": ("torch_pruning", "torch-pruning"),
    "fastnas": ("modelopt.torch.prune", "nvidia-modelopt"),
}
