"""What layers of the dense network answer, sampled as the compacted network's layers are."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from torch import Tensor, nn

from rlprune.compensation.sequential.samples import Enough, Sampler, part_of
from rlprune.compensation.sequential.sums import Addend, Sums
from rlprune.observe import Observation, Sink, Site, stream


class Targets:
    """What layers of the compacted network are to answer, a portion of the layers at a time.

    That is the dense layer's output or, where it is added to something (see `Sums`), the sum: what
    the layer has to answer so that the sum comes out right depends on what the compacted network
    adds it to.

    Attributes:
        order: Layers as they are executed.
        sums: The terms whose targets are sums, by layer.
        normalised: Layers whose output goes straight into batch normalisation, which takes off
            its mean.
        left_out: Layers that are not called as modules exactly once, with the reason.
    """

    def __init__(self, dense: nn.Module, inputs: Any, sampler: Sampler, memory: int) -> None:
        self._dense, self._inputs, self._sampler, self._memory = dense, inputs, sampler, memory
        self._kept: dict[str, Tensor] = {}
        self._size = 0
        self.order: list[str] = []
        self.sums: dict[str, Addend] = {}
        calls, seen = self._explore()
        self.normalised = seen.normalised
        self.left_out = {
            name: "its module is not called by itself" if not count else "it is called repeatedly"
            for name, count in calls.items()
            if count != 1
        }
        self.order = [name for name in self.order if name not in self.left_out]
        for name, term in list(self.sums.items()):
            if name in self.left_out or (term.norm is not None and not self._own(term.norm, seen)):
                del self.sums[name]

    def _own(self, norm: str, seen: Sums) -> bool:
        """Whether a batch normalisation has a scale of its own and serves one layer alone."""
        layer = self._dense.get_submodule(norm)
        shares = [m for m in self._dense.modules() if getattr(m, "weight", None) is layer.weight]
        return layer.weight is not None and seen.calls[norm] == 1 and len(shares) == 1

    def prefer(self, name: str) -> float:
        """Which of two layers that are added has its target corrected: the one that reads more."""
        return self._sampler.consumers[name].inputs

    def _explore(self) -> tuple[dict[str, int], Sums]:
        """Run two samples; how often each layer is called, and the sums."""
        calls = dict.fromkeys(self._sampler.consumers, 0)

        def answered(seen: Observation) -> None:
            name = seen.site.path
            calls[name] += 1
            if calls[name] == 1:
                self.order.append(name)

        def total(term: Addend, value: Tensor) -> None:
            self.sums.setdefault(term.layer, term)

        sums = Sums(self._dense, calls.keys(), self.prefer, result=total)
        self._run(part_of(self._inputs, slice(0, 2)), calls, answered, sums)
        return calls, sums

    def take(self, name: str) -> Tensor:
        """A layer's target rows, [samples, positions, outputs]; asked for once."""
        if name not in self._kept:
            self._kept.clear()
            self._size = 0
            rest = self.order[self.order.index(name) :]
            coming, summed = set(rest), set[str]()

            def answered(seen: Observation) -> None:
                coming.discard(seen.site.path)
                self._keep(seen.site.path, seen.value)
                stop()

            def total(term: Addend, value: Tensor) -> None:
                if self.sums.get(term.layer) == term and term.layer not in summed:
                    summed.add(term.layer)
                    self._replace(term.layer, value)
                    stop()

            def stop() -> None:
                waiting = self._kept.keys() & self.sums.keys() - summed
                if not waiting and (not coming or self._size >= self._memory):
                    raise Enough

            sums = Sums(self._dense, set(rest), self.prefer, result=total)
            self._run(self._inputs, rest, answered, sums)
        found = self._kept[name]
        self._forget(name)
        return found

    def _keep(self, name: str, output: Tensor) -> None:
        if self._kept and self._size >= self._memory:
            return
        rows = self._sampler.outputs(name, output).clone()
        self._kept[name] = rows
        self._size += rows.nbytes

    def _replace(self, name: str, total: Tensor) -> None:
        """Keep the rows of a sum in place of the layer's own, if those were kept."""
        if name in self._kept:
            self._kept[name] = self._sampler.outputs(name, total.detach()).clone()

    def _forget(self, name: str) -> None:
        if name in self._kept:
            self._size -= self._kept.pop(name).nbytes

    def _run(self, inputs: Any, layers: Iterable[str], answered: Sink, sums: Sums) -> None:
        with suppress(Enough), sums:
            stream(self._dense, [(inputs, None)], dict.fromkeys(map(Site, layers), answered))
