"""The recorder: sees what the network computes, changes nothing, leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from rlprune.errors import ConfigError
from rlprune.modes import attention_spelled_out
from rlprune.observe import Observation, Recorder, Site, Watch, expand, stream
from rlprune.zoo.transformers_tiny import build


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Own(nn.Module):
    """Functions outside modules, one module called twice, several outputs, keyword arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.twice = nn.Linear(6, 6)
        self.projection = nn.Parameter(torch.randn(8, 6))
        self.offset = nn.Parameter(torch.randn(4))
        self.pair = Pair()

    def forward(self, images: Tensor, scale: float = 1.0) -> dict[str, Any]:
        x = functional.relu_(self.norm(self.first(images))).mean((2, 3))
        x = self.twice(self.twice(input=x)) + x
        left, right = self.pair(x=x, factor=scale)
        up = functional.linear(left, self.projection[:4], self.offset)
        down = right @ self.projection[4:].T
        return {"logits": up + down, "parts": (left, right)}


class Pair(nn.Module):
    def forward(self, x: Tensor, factor: float) -> tuple[Tensor, Tensor]:
        return x.softmax(-1) * factor, x.tanh()


@pytest.fixture
def network() -> Own:
    torch.manual_seed(0)
    return Own().eval()


class Seen:
    """Keeps copies of what sinks are given."""

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}

    def __call__(self, seen: Observation) -> None:
        assert not seen.value.requires_grad
        self.values[str(seen.site)] = seen.value.clone()

    def __getitem__(self, site: str) -> Tensor:
        return self.values[site]


def state(network: nn.Module) -> list[Any]:
    """Everything about a network that a recorder could leave changed."""
    return [
        [m.training for m in network.modules()],
        [{k: v for k, v in vars(m).items() if "hooks" in k and v} for m in network.modules()],
        [(p.requires_grad, p.grad is None, p._version) for p in network.parameters()],
        [b._version for b in network.buffers()],
    ]  # fmt: skip


def test_sites_read_back_from_their_text_and_short_forms_give_way_to_modules() -> None:
    for text in ("a.b@output", "@input", "a.*@input[mask]#2", "a.w@output[1]", "a:softmax@input#0"):
        assert str(Site.parse(text)) == text
    assert Site.parse("a.b.output") == Site("a.b") == Site.parse("a.b")
    assert Site.parse("a.b.input") == Site("a.b", "input")
    bert = nn.ModuleDict({"output": nn.Linear(2, 2)})
    assert expand(bert, "output") == [Site("output")]
    assert expand(bert, "output.input") == [Site("output", "input")]
    assert expand(bert, "*.input") == [Site("", "input"), Site("output", "input")]
    assert expand(bert, "*put.weight") == [Site("output.weight")]
    with pytest.raises(ConfigError, match="'outptu'; did you mean 'output'"):
        expand(bert, "outptu")
    with pytest.raises(ConfigError, match="neither input nor output"):
        Site("output", "between")
    with pytest.raises(ConfigError, match="not of the form"):
        Site.parse("a@inside")


def test_values_are_those_the_network_computes(network: Own) -> None:
    images, seen = drawn(2, 3, 5, 5), Seen()
    sites = [
        *("first", "norm@input", "twice", "pair@output[1]", "pair@input", "@output[logits]"),
        *("projection@input", "projection@output", "pair:softmax", ":linear@output"),
        "pair@input[x]",
    ]  # fmt: skip
    with torch.no_grad(), Recorder(network, dict.fromkeys(sites, seen)) as recorder:
        answer = network(images, scale=2.0)
    with torch.no_grad():
        first = network.first(images)
        pooled = functional.relu(network.norm(first)).mean((2, 3))
        once = network.twice(pooled)
        x = network.twice(once) + pooled
    assert not recorder.silent
    assert torch.equal(seen["first@output#0"], first), "seen before the activation worked in place"
    assert torch.equal(seen["norm@input#0"], first)
    assert torch.equal(seen["twice@output#0"], once)
    assert torch.equal(seen["twice@output#1"], x - pooled) or torch.allclose(
        seen["twice@output#1"], x - pooled, atol=1e-6
    )
    assert torch.equal(seen["pair@input#0"], x), "a keyword argument, by its place"
    assert torch.equal(seen["pair@input[x]#0"], x)
    assert torch.equal(seen["pair@output[1]#0"], x.tanh())
    assert torch.equal(seen["pair:softmax@output#0"], x.softmax(-1))
    assert torch.equal(seen["projection@input#0"], x.softmax(-1) * 2.0)
    assert torch.equal(seen["projection@input#1"], x.tanh())
    assert torch.equal(seen["projection@output#1"], x.tanh() @ network.projection[4:].T)
    assert torch.equal(seen[":linear@output#0"], once), "modules call functions too"
    assert torch.equal(seen["@output[logits]#0"], answer["logits"])


@pytest.mark.parametrize("mode", [nullcontext, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["own", "bert", "llama", "encoder"])
def test_outputs_are_bit_equal_and_the_network_stays_as_it_was(name: str, mode: Any) -> None:
    network, inputs = made(name)
    before = state(network)
    sites = {"*@input": Seen(), "*@output": Seen(), ":linear": Seen(), ":add@input[1]": Seen()}
    with mode(), attention_spelled_out():
        plain = tensors(network(**inputs))
        with Recorder(network, sites) as recorder:
            watched = tensors(network(**inputs))
        again = tensors(network(**inputs))
    assert len([s for s, n in recorder.seen.items() if n]) > 10
    assert all(map(torch.equal, plain, watched)), "another answer while recorded"
    assert all(map(torch.equal, plain, again))
    assert state(network) == before


def made(name: str) -> tuple[nn.Module, dict[str, Any]]:
    torch.manual_seed(1)
    if name == "own":
        return Own().eval(), {"images": drawn(2, 3, 5, 5)}
    if name == "encoder":
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        return nn.TransformerEncoder(layer, 2).eval(), {"src": drawn(2, 5, 8)}
    pytest.importorskip("transformers")
    network, inputs = build(name)
    return network.eval(), inputs


def tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    return [x for x in output.values() if isinstance(x, Tensor)]


def test_gradients_are_those_of_autograd_also_behind_activations_in_place(network: Own) -> None:
    images, seen = drawn(2, 3, 5, 5), Seen()
    twin = drawn(2, 6, 5, 5, seed=1).requires_grad_()
    network.first = Constant(twin)
    network(images)["logits"].square().sum().backward()
    network.requires_grad_(False)
    network.first = Constant(twin.detach())
    with Recorder(network, gradients={"first": seen, "norm@input": seen}):
        network(images)["logits"].square().sum().backward()
    assert torch.equal(seen["first@output#0"], twin.grad)
    assert torch.equal(seen["norm@input#0"], twin.grad)
    assert all(p.grad is None or not p.requires_grad for p in network.parameters())


class Constant(nn.Module):
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, images: Tensor) -> Tensor:
        return self.value


def test_recorders_stay_out_of_a_trained_networks_gradients(network: Own) -> None:
    images = drawn(2, 3, 5, 5)

    def gradients(**options: Any) -> list[Tensor]:
        network.zero_grad()
        with Recorder(network, **options):
            network(images)["logits"].square().sum().backward()
        return [p.grad.clone() for p in network.parameters() if p.grad is not None]

    plain = gradients()
    assert all(map(torch.equal, plain, gradients(sinks={"*": Seen(), ":add": Seen()})))
    assert all(map(torch.equal, plain, gradients(gradients={"*": Seen(), "twice@input": Seen()})))


def test_everything_comes_off_when_the_network_or_a_sink_raises(network: Own) -> None:
    before = state(network)

    def broken(seen: Observation) -> None:
        raise ArithmeticError("sink")

    with pytest.raises(ArithmeticError, match="sink"):
        stream(network.train(), [(drawn(2, 3, 5, 5), None)], {"twice@output#1": broken})
    network.eval()
    seen = Seen()
    recorder = Recorder(network, {"pair:softmax": seen, "twice": seen})
    with pytest.raises(RuntimeError), recorder:
        network(drawn(2, 4, 5, 5))
    assert state(network) == before
    with torch.no_grad(), recorder:
        network(drawn(2, 3, 5, 5))
        network(drawn(2, 3, 5, 5))
    assert set(seen.values) == {"pair:softmax@output#0", "twice@output#0", "twice@output#1"}
    assert state(network) == before


def test_what_a_sink_returns_goes_on(network: Own) -> None:
    images = drawn(2, 3, 5, 5)
    with torch.no_grad():
        with Recorder(network, {"pair@input": lambda seen: torch.zeros_like(seen.value)}):
            changed = network(images)
        with Recorder(network, {"@output[logits]": lambda seen: seen.value + 1}):
            shifted = network(images)
        assert torch.equal(shifted["logits"], network(images)["logits"] + 1)
    assert torch.equal(changed["parts"][1], torch.zeros(2, 6))


def test_calls_repeated_by_checkpointing_are_seen_once() -> None:
    inner = nn.Sequential(nn.Linear(3, 3), nn.Tanh())

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = checkpoint(self.inner, x, use_reentrant=False)
            return result

    network, count = Outer(), []
    with Recorder(network, {"inner.1": lambda seen: count.append(1)}):
        network(drawn(2, 3)).sum().backward()
    assert len(count) == 1


def test_a_stream_tells_samples_and_masks_and_holds_one_batch_at_a_time() -> None:
    network, inputs = made("bert")
    starts: list[tuple[int, Tensor | None]] = []
    alive: list[int] = []

    def batches() -> Iterator[tuple[Any, None]]:
        for _ in range(3):
            yield inputs, None

    def sink(seen: Observation) -> None:
        starts.append((seen.start, seen.mask))
        alive.append(seen.value.untyped_storage().nbytes())

    recorder = stream(network, batches(), {"*.layer.0.output.dense": sink})
    assert [start for start, _ in starts] == [0, 2, 4]
    assert all(torch.equal(mask, inputs["attention_mask"].bool()) for _, mask in starts)
    assert recorder.seen == {Site("bert.encoder.layer.0.output.dense"): 3}


def test_a_watch_is_entered_once_and_names_what_is_missing(network: Own) -> None:
    with pytest.raises(ConfigError, match="no module 'twise'; did you mean 'twice'"):
        Watch(network).module("twise", before=print)
    with pytest.raises(ConfigError, match="no function 'sotfmax'"):
        Recorder(network, {":sotfmax": Seen()})
    with Watch(network) as watch, pytest.raises(RuntimeError, match="entered already"):
        watch.__enter__()
