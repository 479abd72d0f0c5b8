"""Whatever form a network answers in, its answer keeps its size, or it is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlprune.compaction import discover
from rlprune.compaction.difference import difference
from rlprune.errors import StructureError
from rlprune.structure.outputs import tensors_of
from tests.structure.laws import hold, widths


@dataclass(slots=True)
class Slotted:
    logits: Tensor


class Own(Mapping[str, Any]):
    def __init__(self, logits: Tensor) -> None:
        self._store = lambda: {"logits": logits}

    def __getitem__(self, key: str) -> Tensor:
        return self._store()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._store())

    def __len__(self) -> int:
        return 1


class Bag:
    __slots__ = ("inner",)

    def __init__(self, inner: Any) -> None:
        self.inner = inner


class Listing(list[Any]):
    """A list with an attribute of its own."""


def listed(y: Tensor) -> Listing:
    found = Listing([torch.ones(2, 4)])
    found.logits = y  # type: ignore[attr-defined]
    return found


def beside(y: Tensor) -> Tensor:
    found = torch.ones(2, 4)
    found.logits = y  # type: ignore[attr-defined]
    return found


FORMS = {
    "array": lambda y: y.detach().numpy(),
    "arrays in a dict": lambda y: {"logits": [y.detach().cpu().numpy()]},
    "slots": Slotted,
    "own slots": lambda y: Bag([y]),
    "set": lambda y: {y},
    "own mapping": Own,
    "numbers": lambda y: {"scores": y.tolist()},
    "attribute of a list": listed,
    "attribute of a tensor": beside,
    "function": lambda y: (torch.ones(2, 4), lambda: y),
    "method": lambda y: {"argmax": y.argmax, "ones": torch.ones(2, 4)},
    "generator": lambda y: (t for t in (y, y)),
    "values of a dict": lambda y: {"logits": y}.values(),
    "key": lambda y: {y: "logits"},
    "records": lambda y: np.rec.fromarrays([y.detach().numpy()], dtype=[("logits", "f8")]),
    "distribution": lambda y: torch.distributions.Categorical(logits=y),
}


class Answering(nn.Module):
    def __init__(self, form: Any) -> None:
        super().__init__()
        self.form, self.a, self.o = form, nn.Linear(3, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Any:
        return self.form(self.o(F.relu(self.a(x))))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_an_answer_in_any_form_keeps_its_size(form: Any) -> None:
    groups, small = hold(Answering(form).double(), torch.randn(2, 3, dtype=torch.float64))
    assert widths(groups) == {"a": 6}
    shapes = [t.shape for t in tensors_of(small(torch.zeros(2, 3, dtype=torch.float64)))]
    assert {s[-1] for s in shapes if s} <= {4} or all(not s for s in shapes)


def test_an_answer_without_a_tensor_is_refused() -> None:
    class Silent(Answering):
        def forward(self, x: Tensor) -> None:
            self.pred = super().forward(x)

    with pytest.raises(StructureError, match=r"no tensor is found in what Silent returns"):
        discover(Silent(lambda y: y), torch.randn(2, 3))


def test_a_sparse_answer_is_compared() -> None:
    model = Answering(lambda y: y.to_sparse()).double()
    groups, _ = hold(model, torch.randn(2, 3, dtype=torch.float64))
    assert not groups["o"].prunable


def test_a_value_that_numpy_decides_on_is_computed() -> None:
    class Decided(Answering):
        def forward(self, x: Tensor) -> Any:
            h = F.relu(self.a(x))
            if h.detach().numpy().sum() <= 0:
                raise RuntimeError("all dead")
            return self.o(h)

    groups, _ = hold(Decided(None).double(), torch.randn(2, 3, dtype=torch.float64))
    assert "its values leave PyTorch" in groups["a"].reason


class TestTolerance:
    def scaled(self, by: float, dtype: torch.dtype, error: float) -> Any:
        torch.manual_seed(0)
        first = nn.Linear(4, 8).to(dtype)
        with torch.no_grad():
            first.weight.mul_(by), first.bias.mul_(by)
        second = nn.Linear(4, 8).to(dtype)
        second.load_state_dict({n: t * (1 + error) for n, t in first.state_dict().items()})
        return difference(first, second, torch.ones(2, 4, dtype=dtype))

    def test_small_answers_are_judged_by_their_own_scale(self) -> None:
        assert not self.scaled(1e-5, torch.float32, 0.15).agrees
        assert self.scaled(1e-5, torch.float32, 1e-6).agrees
        assert not self.scaled(1e5, torch.float64, 1e-9).agrees

    def test_half_types_by_their_precision(self) -> None:
        assert not self.scaled(1.0, torch.bfloat16, 0.1).agrees
        assert not self.scaled(1.0, torch.float16, 0.02).agrees

    def test_every_output_counts(self) -> None:
        class Two(nn.Module):
            def __init__(self, wrong: float) -> None:
                super().__init__()
                self.p, self.wrong = nn.Parameter(torch.ones(3)), wrong

            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                return 1e4 * x, (1e-2 + self.wrong) * x

        x = torch.randn(2, 3)
        found = difference(Two(0.0), Two(1e-3), x)
        assert not found.agrees
        assert found.output == 1

    def test_what_is_not_finite_must_be_alike(self) -> None:
        one, other = nn.Linear(2, 2), nn.Linear(2, 2)
        other.load_state_dict(one.state_dict())
        nn.init.constant_(other.bias, float("nan"))
        assert not difference(one, other, torch.ones(1, 2)).agrees
        assert difference(other, other, torch.ones(1, 2)).agrees

    def test_whole_numbers_alone(self) -> None:
        class Classes(nn.Module):
            def __init__(self, label: int) -> None:
                super().__init__()
                self.p, self.label = nn.Parameter(torch.ones(3)), label

            def forward(self, x: Tensor) -> Tensor:
                return torch.full((2,), self.label)

        assert difference(Classes(1), Classes(1), torch.ones(1)).agrees
        assert not difference(Classes(1), Classes(2), torch.ones(1)).agrees
