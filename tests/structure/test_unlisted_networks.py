"""Networks no one listed: one small test each."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from tests.structure.laws import hold, reason, widths


def rand(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def sequential(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers).double()


class TestSharing:
    def test_a_module_called_twice_ties_its_input_to_its_output(self) -> None:
        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.o = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 2)

            def forward(self, x: Tensor) -> Tensor:
                return self.o(F.relu(self.b(F.relu(self.b(F.relu(self.a(x)))))))

        groups, small = hold(Twice().double(), rand(4, 3))
        assert widths(groups) == {"a": 6}
        assert small.b.weight.shape == (3, 3)

    def test_tied_parameters_stay_tied(self) -> None:
        class Tied(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.e, self.a, self.b = nn.Embedding(10, 6), nn.Linear(6, 9), nn.Linear(9, 6)
                self.o = nn.Linear(6, 10, bias=False)
                self.o.weight = self.e.weight

            def forward(self, x: Tensor) -> Tensor:
                h = self.e(x)
                return self.o(h + self.b(F.gelu(self.a(h))))

        groups, small = hold(Tied().double(), torch.randint(10, (3, 4)))
        assert widths(groups) == {"e": 6, "a": 9}
        assert small.o.weight is small.e.weight
        assert "looked up by number" in reason(groups, "e#2")

    def test_an_autoencoder_with_a_transposed_weight(self) -> None:
        class Auto(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.w = nn.Parameter(torch.randn(7, 4))

            def forward(self, x: Tensor) -> Tensor:
                return F.linear(F.relu(F.linear(x, self.w)), self.w.t())

        groups, _ = hold(Auto().double(), rand(3, 4))
        assert [g.width for g in groups.prunable] == [7]


class TestComputedWeights:
    @pytest.mark.parametrize("new", [True, False])
    def test_weight_norm_keeps_its_inputs_and_names_the_cure(self, new: bool) -> None:
        norm = parametrizations.weight_norm if new else nn.utils.weight_norm
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            layers = [norm(nn.Conv2d(3, 8, 3)), nn.ReLU(), norm(nn.Conv2d(8, 6, 3))]
        model = sequential(*layers, nn.ReLU(), nn.Conv2d(6, 5, 1), nn.Conv2d(5, 2, 1))
        groups, _ = hold(model, rand(2, 3, 8, 8))
        assert widths(groups) == {"2": 6, "4": 5}
        assert "norm of its weight" in reason(groups, "0")
        assert "remove_parametrizations" in reason(groups, "0")

    def test_weight_norm_baked_in_is_prunable(self) -> None:
        layer = parametrizations.weight_norm(nn.Linear(3, 8))
        parametrize.remove_parametrizations(layer, "weight")
        groups, _ = hold(sequential(layer, nn.ReLU(), nn.Linear(8, 2)), rand(2, 3))
        assert widths(groups) == {"0": 8}

    @pytest.mark.parametrize("norm", [parametrizations.spectral_norm, nn.utils.spectral_norm])
    def test_spectral_norm_is_frozen(self, norm: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            layers = [norm(nn.Linear(3, 8)), nn.ReLU(), norm(nn.Linear(8, 6)), nn.ReLU()]
        groups, _ = hold(sequential(*layers, nn.Linear(6, 5), nn.Linear(5, 2)), rand(2, 3))
        assert widths(groups) == {"4": 5}
        assert "multiplied by each other" in reason(groups, "0")

    def test_a_scaling_parametrization_is_followed(self) -> None:
        class Double(nn.Module):
            def forward(self, w: Tensor) -> Tensor:
                return 2 * w

        layer = nn.Linear(5, 6)
        parametrize.register_parametrization(layer, "weight", Double())
        model = sequential(nn.Linear(3, 5), nn.ReLU(), layer, nn.ReLU(), nn.Linear(6, 2))
        groups, small = hold(model, rand(2, 3))
        assert widths(groups) == {"0": 5, "2": 6}
        assert parametrize.is_parametrized(small[2], "weight")

    def test_a_parametrization_that_moves_zero_freezes_its_inputs(self) -> None:
        class Positive(nn.Module):
            def forward(self, w: Tensor) -> Tensor:
                return F.softplus(w)

        layer = nn.Linear(5, 6)
        parametrize.register_parametrization(layer, "weight", Positive())
        model = sequential(nn.Linear(3, 5), nn.ReLU(), layer, nn.ReLU(), nn.Linear(6, 2))
        groups, _ = hold(model, rand(2, 3))
        assert not groups["0"].prunable

    def test_a_low_rank_update_of_a_weight(self) -> None:
        class Merged(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.pre, self.base, self.o = nn.Linear(3, 5), nn.Linear(5, 6), nn.Linear(6, 2)
                self.a, self.b = nn.Parameter(rand(2, 5)), nn.Parameter(rand(6, 2))

            def forward(self, x: Tensor) -> Tensor:
                weight = self.base.weight + self.b @ self.a
                return self.o(F.relu(F.linear(F.relu(self.pre(x)), weight, self.base.bias)))

        hold(Merged().double(), rand(2, 3))

    @pytest.mark.parametrize("kind", [nn.Conv2d, nn.Linear])
    def test_standardised_weights_are_listed_as_whole(self, kind: Any) -> None:
        class Standard(kind):  # type: ignore[misc]
            def forward(self, x: Tensor) -> Tensor:
                w = self.weight.flatten(1)
                w = ((w - w.mean(1, True)) / w.std(1, keepdim=True)).view_as(self.weight)
                return F.linear(x, w) if kind is nn.Linear else F.conv2d(x, w, self.bias)

        extra = () if kind is nn.Linear else (1,)
        model = sequential(Standard(3, 8, *extra), nn.ReLU(), Standard(8, 6, *extra), nn.ReLU(),
                           kind(6, 5, *extra), nn.ReLU(), kind(5, 2, *extra))  # fmt: skip
        groups, _ = hold(model, rand(2, 3, *[4] * 2 * len(extra)))
        assert widths(groups) == {"4": 5}
        assert (groups["0"].width, groups["2"].width) == (8, 6)
        assert "computed in the forward pass" in reason(groups, "2")

    def test_a_convolution_with_a_computed_kernel(self) -> None:
        class Dynamic(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.k = nn.Conv2d(3, 4, 3), nn.Linear(3, 4 * 4)
                self.o = nn.Conv2d(4, 2, 1)

            def forward(self, x: Tensor) -> Tensor:
                kernel = self.k(x.mean((0, 2, 3))).view(4, 4, 1, 1)
                return self.o(F.conv2d(self.a(x), kernel))

        groups, _ = hold(Dynamic().double(), rand(2, 3, 6, 6))
        assert "kernel is computed in the forward pass" in reason(groups, "a")


class TestRecurrent:
    @pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
    def test_layers_are_left_whole(self, kind: Any) -> None:
        class Tagger(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.e, self.p = nn.Embedding(10, 6), nn.Linear(6, 7)
                self.r = kind(7, 8, batch_first=True, bidirectional=True, num_layers=2)
                self.a, self.o = nn.Linear(16, 5), nn.Linear(5, 2)

            def forward(self, x: Tensor) -> Tensor:
                y, _ = self.r(F.relu(self.p(self.e(x))))
                return self.o(F.relu(self.a(y[:, -1])))

        groups, _ = hold(Tagger().double(), torch.randint(10, (2, 5)))
        assert widths(groups) == {"e": 6, "a": 5}
        assert groups["r"].width == 8
        assert "recurrent layers keep their size" in reason(groups, "r")

    @pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
    def test_cells_are_left_whole(self, kind: Any) -> None:
        class Loop(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.i, self.c, self.o = nn.Linear(3, 4), kind(4, 6), nn.Linear(6, 2)

            def forward(self, x: Tensor) -> Tensor:
                h: Any = None
                for _ in range(3):
                    h = self.c(F.relu(self.i(x)), h)
                return self.o(h[0] if isinstance(h, tuple) else h)

        groups, _ = hold(Loop().double(), rand(2, 3))
        assert not groups.prunable
        assert "recurrent" in reason(groups, "c")


class TestShortcuts:
    def test_option_a_keeps_what_meets_the_padding(self) -> None:
        class Lambda(nn.Module):
            def __init__(self, pad: int) -> None:
                super().__init__()
                self.pad = pad

            def forward(self, x: Tensor) -> Tensor:
                return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))

        class Block(nn.Module):
            def __init__(self, c: int, d: int) -> None:
                super().__init__()
                self.a = nn.Conv2d(c, d, 3, stride=2, padding=1)
                self.b, self.short = nn.Conv2d(d, d, 3, padding=1), Lambda((d - c) // 2)

            def forward(self, x: Tensor) -> Tensor:
                return F.relu(self.b(F.relu(self.a(x))) + self.short(x))

        model = sequential(
            nn.Conv2d(3, 4, 3, padding=1), Block(4, 8), Block(8, 16), nn.Flatten(), nn.Linear(64, 3)
        )
        groups, _ = hold(model, rand(2, 3, 8, 8))
        assert widths(groups) == {"0": 4, "1.a": 8, "2.a": 16}
        frozen = [g for g in groups if g.name.startswith(("1.b", "2.b"))]
        assert [g.width for g in frozen] == [4, 8]

    def test_dense_concatenation_is_one_group_per_layer(self) -> None:
        class Dense(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = nn.ModuleList(nn.Conv2d(c, 4, 3, padding=1) for c in (3, 7, 11))
                self.o = nn.Conv2d(15, 2, 1)

            def forward(self, x: Tensor) -> Tensor:
                for layer in self.layers:
                    x = torch.cat([x, F.relu(layer(x))], 1)
                return self.o(x)

        groups, _ = hold(Dense().double(), rand(2, 3, 5, 5))
        assert widths(groups) == {"layers.0": 4, "layers.1": 4, "layers.2": 4}


class TestInputsAndOutputs:
    def test_several_tensors(self) -> None:
        class Pair(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = nn.Linear(3, 5), nn.Linear(4, 6)
                self.bi, self.o = nn.Bilinear(5, 6, 7), nn.Linear(7, 2)

            def forward(self, x: Tensor, y: Tensor) -> Tensor:
                return self.o(F.relu(self.bi(self.a(x), self.b(y))))

        groups, _ = hold(Pair().double(), (rand(2, 3), rand(2, 4)))
        assert not groups.prunable
        assert groups["bi"].width == 7
        assert "no rule for this op" in reason(groups, "bi")

    def test_keywords_and_a_dict_out(self) -> None:
        class Keywords(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.o = nn.Linear(3, 5), nn.Linear(4, 5), nn.Linear(5, 2)

            def forward(self, x: Tensor, y: Tensor, *, scale: float = 1.0) -> dict[str, Any]:
                return {"out": self.o(F.relu(self.a(x) + self.b(y))) * scale, "count": 3}

        groups, _ = hold(Keywords().double(), {"x": rand(2, 3), "y": rand(2, 4), "scale": 2.0})
        assert widths(groups) == {"a": 5}

    def test_a_dataclass_out_keeps_what_it_holds(self) -> None:
        @dataclass
        class Output:
            logits: Tensor
            hidden: Tensor | None = None

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.o = nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, 2)

            def forward(self, x: Tensor) -> Output:
                h = F.relu(self.a(x))
                return Output(self.o(F.relu(self.b(h))), h)

        groups, _ = hold(Model().double(), rand(2, 3))
        assert widths(groups) == {"b": 4}
        assert reason(groups, "a") == "it is an output of the network"

    def test_a_graph_of_index_additions(self) -> None:
        class Graph(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.o = nn.Linear(3, 6), nn.Linear(6, 5), nn.Linear(5, 2)

            def forward(self, x: Tensor, edges: Tensor) -> Tensor:
                h = self.a(x)
                h = torch.zeros_like(h).index_add(0, edges[0], h[edges[1]])
                return self.o(F.relu(self.b(h)))

        groups, _ = hold(Graph().double(), (rand(5, 3), torch.randint(5, (2, 7))))
        assert widths(groups) == {"a": 6, "b": 5}

    def test_sliding_patches(self) -> None:
        class Patches(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.o = nn.Conv2d(3, 4, 1), nn.Linear(36, 5), nn.Linear(5, 2)

            def forward(self, x: Tensor) -> Tensor:
                patches = F.unfold(self.a(x), 3, padding=1).transpose(1, 2)
                return self.o(F.relu(self.b(patches)))

        groups, _ = hold(Patches().double(), rand(2, 3, 6, 6))
        assert widths(groups) == {"a": 4, "b": 5}

    def test_bags_of_embeddings(self) -> None:
        model = sequential(nn.EmbeddingBag(10, 6), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
        groups, _ = hold(model, torch.randint(10, (3, 4)))
        assert widths(groups) == {"0": 6, "1": 5}
