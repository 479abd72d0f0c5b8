"""The recorder: activations and gradients by site, streamed to sinks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.batches import Batch
from rlprune.inputs import ExampleInputs, batch_size, call_safely
from rlprune.modes import evaluating
from rlprune.observe.sites import Site, expand_all
from rlprune.observe.watch import Call, Watch
from rlprune.progress import track

LINEAR = (
    *("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "embedding"),
    *(f"conv{transpose}{n}d" for transpose in ("", "_transpose") for n in (1, 2, 3)),
)
"""Functions that a site at a parameter watches."""


@dataclass(frozen=True)
class Observation:
    """What was seen at a site.

    Attributes:
        site: The site, with the number of the call filled in.
        value: The activation or its gradient, without history. It is the network's own memory, to
            be read now: what is to outlive the sink has to be copied.
        module: The module at the site; None at functions.
        samples: Number of samples in the batch (see `Recorder.batch`); 0 where nobody told.
        start: Samples that passed in earlier batches.
        mask: ``[samples, positions]``, true where a position counts; None where all do.
    """

    site: Site
    value: Tensor
    module: nn.Module | None = None
    samples: int = 0
    start: int = 0
    mask: Tensor | None = None


Sink = Callable[[Observation], "Tensor | None"]
"""Takes what was seen; a tensor that it returns goes on in place of the activation."""


Sinks = Mapping[str, Sink] | Mapping[Site, Sink] | Mapping[str | Site, Sink]
"""By site, its text or a pattern of sites: who takes what is seen there."""


class Recorder:
    """Streams activations and gradients of a network to sinks while it runs.

    Nothing is kept: each value is handed to its sink as the network computes it. As long as sinks
    return nothing, the network's outputs are those without a recorder, bit by bit; its parameters,
    flags and hooks are as before once the block is left, however it is left. Gradients are seen
    when a backward pass reaches them; to a value without history the recorder gives one, so that
    frozen networks can be differentiated. Values that are no tensors are passed over.

    Example::

        means = {}
        with Recorder(network, {"layer*.conv1": lambda seen: means.update(
                {seen.site.path: seen.value.mean()})}):
            network(images)

    Args:
        network: The network.
        sinks: Who takes activations.
        gradients: Who takes gradients of activations.

    Attributes:
        seen: Number of values handed out by site.

    Raises:
        ConfigError: A pattern matches nothing, or a function does not exist.
    """

    def __init__(
        self,
        network: nn.Module,
        sinks: Sinks | None = None,
        *,
        gradients: Sinks | None = None,
    ) -> None:
        self._network = network
        self._watch = Watch(network)
        self._parameters = dict(network.named_parameters(remove_duplicate=False))
        self._start, self._size = 0, 0
        self._mask: Tensor | None = None
        self.seen: dict[Site, int] = {}
        for found, backward in ((sinks, False), (gradients, True)):
            for site, sink in expand_all(network, found):
                self._observe(site, sink, backward)

    @property
    def silent(self) -> list[Site]:
        """Sites at which nothing was seen."""
        return [site for site, count in self.seen.items() if not count]

    def __enter__(self) -> Recorder:
        """Begin to record."""
        self._watch.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        """Stop recording."""
        self._watch.__exit__(*details)

    def batch(self, samples: int, mask: Tensor | None = None) -> None:
        """Tell of the batch that comes next, for sinks that ask which samples they see.

        Args:
            samples: Number of samples in it.
            mask: ``[samples, positions]``, true where a position is no padding.
        """
        self._start += self._size
        self._size, self._mask = samples, mask

    def _observe(self, site: Site, sink: Sink, backward: bool) -> None:
        self.seen.setdefault(site, 0)
        path, colon, function = site.path.partition(":")
        parameter = self._parameters.get(path)
        reading = None if parameter is None else _Reading(site, parameter)
        watcher = self._watcher(site, sink, backward, reading or _Arguments(site))
        before, after = (watcher, None) if site.where == "input" else (None, watcher)
        if colon:
            self._watch.function(function, within=path, before=before, after=after)
        elif reading is not None:
            self._watch.function(LINEAR, before=before, after=after, reads=reading.holds)
        else:
            self._watch.module(path, before=before, after=after)

    def _watcher(
        self, site: Site, sink: Sink, backward: bool, place: _Arguments
    ) -> Callable[[Call], None]:
        sites: dict[int, Site] = {}

        def watcher(call: Call) -> None:
            if site.call is not None and call.number != site.call:
                return
            value = place.take(call)
            if not isinstance(value, Tensor):
                return
            at = sites.get(call.number)
            if at is None:
                at = sites[call.number] = replace(site, call=call.number)
            if backward:
                self._hand_back(site, at, sink, call, value, place)
                return
            self.seen[site] += 1
            new = sink(self._observation(at, value, call))
            if new is not None:
                place.put(call, new)

        return watcher

    def _hand_back(
        self, site: Site, at: Site, sink: Sink, call: Call, value: Tensor, place: _Arguments
    ) -> None:
        if not value.is_floating_point() or not torch.is_grad_enabled():
            return
        seen = self._observation(at, value, call)

        def keep(gradient: Tensor) -> None:
            self.seen[site] += 1
            sink(replace(seen, value=gradient.detach()))

        place.put(call, differentiable(value, keep))

    def _observation(self, site: Site, value: Tensor, call: Call) -> Observation:
        batch = (self._size, self._start, self._mask)
        return Observation(site, value.detach(), call.module, *batch)


def differentiable(value: Tensor, keep: Callable[[Tensor], None]) -> Tensor:
    """A copy of a value to go on in its place, whose gradient is shown.

    A copy, so that an activation working in place changes neither the value nor a leaf.

    Args:
        value: Floating-point; given a history of its own if it has none.
        keep: Called with the gradient.
    """
    root = value if value.requires_grad else value.detach().clone().requires_grad_()
    passed = root.clone()
    passed.register_hook(keep)
    return passed


class _Arguments:
    """Where a value lies in a call: the site's argument or part of the output."""

    def __init__(self, site: Site) -> None:
        self.argument, self.before = site.argument, site.where == "input"

    def take(self, call: Call) -> Any:
        if not self.before:
            return _part(call.output, self.argument)
        place = self.place(call)
        if isinstance(place, str):
            return call.kwargs.get(place)
        return call.args[place] if place < len(call.args) else None

    def put(self, call: Call, value: Any) -> None:
        if not self.before:
            call.output = _with_part(call.output, self.argument, value)
            return
        place = self.place(call)
        if isinstance(place, str):
            call.kwargs = {**call.kwargs, place: value}
        else:
            call.args = (*call.args[:place], value, *call.args[place + 1 :])

    def place(self, call: Call) -> int | str:
        """Index into the positional arguments, or a keyword."""
        if isinstance(self.argument, int) and self.argument < len(call.args):
            return self.argument
        names = _argument_names(call)
        if isinstance(self.argument, str):
            at = names.index(self.argument) if self.argument in names else len(call.args)
            return at if at < len(call.args) else self.argument
        if self.argument < len(names):
            return names[self.argument]
        rest = [name for name in call.kwargs if name not in names]
        at = self.argument - max(len(call.args), len(names))
        return rest[at] if 0 <= at < len(rest) else self.argument


class _Reading(_Arguments):
    """Operands of a linear function that reads a parameter; the parameter is not counted."""

    def __init__(self, site: Site, parameter: Tensor) -> None:
        super().__init__(site)
        self._storage = parameter.untyped_storage()._cdata

    def holds(self, call: Call) -> bool:
        return any(self._mine(x) for x in _flat(call))

    def _mine(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.untyped_storage()._cdata == self._storage

    def place(self, call: Call) -> int | str:
        places: list[int | str] = [
            *(i for i, x in enumerate(call.args) if isinstance(x, Tensor) and not self._mine(x)),
            *(k for k, x in call.kwargs.items() if isinstance(x, Tensor) and not self._mine(x)),
        ]
        if isinstance(self.argument, str):
            return self.argument
        return places[self.argument] if self.argument < len(places) else len(call.args)


def _flat(call: Call) -> Iterable[Any]:
    for value in (*call.args, *call.kwargs.values()):
        yield from value if isinstance(value, (list, tuple)) else (value,)


def _argument_names(call: Call) -> list[str]:
    if call.module is None:
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = inspect.signature(call.module.forward).parameters.values()
    return [parameter.name for parameter in found if parameter.kind in kinds]


def _part(output: Any, argument: int | str) -> Any:
    if isinstance(output, Tensor):
        return output if argument == 0 else None
    if isinstance(output, Mapping):
        if isinstance(argument, str):
            return output.get(argument)
        values = list(output.values())
        return values[argument] if argument < len(values) else None
    if isinstance(argument, str):
        return getattr(output, argument, None)
    if isinstance(output, (tuple, list)):
        return output[argument] if argument < len(output) else None
    return None


def _with_part(output: Any, argument: int | str, value: Any) -> Any:
    """The output with one part replaced, in its own form."""
    if isinstance(output, Tensor):
        return value
    if isinstance(output, Mapping):
        name = argument if isinstance(argument, str) else list(output)[argument]
        changed = {**output, name: value}
        return changed if type(output) is dict else type(output)(**changed)
    if hasattr(output, "_fields"):
        name = argument if isinstance(argument, str) else output._fields[argument]
        return output._replace(**{name: value})
    if isinstance(argument, str):
        return replace(output, **{argument: value})
    parts = [value if i == argument else part for i, part in enumerate(output)]
    return type(output)(parts)


def attention_mask(inputs: ExampleInputs) -> Tensor | None:
    """The ``attention_mask`` of a batch that is a mapping, true where there is no padding."""
    found = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    return found.bool() if isinstance(found, Tensor) and found.ndim == 2 else None


def stream(
    network: nn.Module,
    batches: Iterable[Batch],
    sinks: Sinks | None = None,
    *,
    mask: Callable[[Any], Tensor | None] = attention_mask,
    title: str = "",
) -> Recorder:
    """Run a network in eval mode, without gradients, over batches and stream what it computes.

    Args:
        network: The network; not changed.
        batches: ``(inputs, labels)`` pairs (see :func:`rlprune.batches.as_batches`).
        sinks: As for `Recorder`.
        mask: From a batch's inputs to its ``[samples, positions]`` mask.
        title: Of a progress bar; none without.

    Returns:
        The recorder; `Recorder.silent` lists sites that were not reached.
    """
    recorder = Recorder(network, sinks)
    items = track(batches, title) if title else batches
    with evaluating(network), torch.no_grad(), recorder:
        for inputs, _ in items:
            recorder.batch(batch_size(inputs), mask(inputs))
            call_safely(network, inputs)
    return recorder
