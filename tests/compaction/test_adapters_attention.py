"""Attention that the stock class cannot express with fewer heads still obeys law 1."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlprune.attention import adaptive_class, stock_class
from rlprune.compaction import Workspace, build, discover, verify
from rlprune.compaction.difference import difference
from rlprune.compaction.plans import Bonds, uneven_plan
from rlprune.compaction.verify import masked_copy
from rlprune.errors import StructureError
from rlprune.plan import Plan
from rlprune.structure.groups import Groups

WIDTH, LENGTH, BATCH = 24, 5, 2


def random_plan(groups: Groups, seed: int = 0, keep: float = 0.5) -> Plan:
    generator = torch.Generator().manual_seed(seed)
    scores = {g.name: torch.rand(g.width, generator=generator) for g in groups.prunable}
    return Plan.uniform(groups, keep, scores)


def draw(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def randomised(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(
            parameter.shape, generator=generator, dtype=torch.float64
        )
    return model.double().eval()


class Attend(nn.Module):
    """One attention between two projections, called the way a user would."""

    def __init__(self, cross: bool = False, masks: str = "", weights: bool = False, **options: Any):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 4, **options)
        self.head = nn.Linear(WIDTH, 3)
        self.cross, self.masks, self.weights = cross, masks, weights
        self.first = options.get("batch_first", False)
        self.kdim, self.vdim = self.attention.kdim, self.attention.vdim

    def forward(self, x: Tensor) -> Tensor:
        key = value = x
        if self.cross:
            key, value = x[..., : self.kdim] * 2, x[..., : self.vdim] + 1
        options: dict[str, Any] = {}
        if "padding" in self.masks:
            hidden = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
            hidden[1, 3:] = True
            options["key_padding_mask"] = hidden
        if "causal" in self.masks:
            options["attn_mask"] = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
        out, _ = self.attention(x, key, value, need_weights=self.weights, **options)
        return self.head(out)


CASES: dict[str, dict[str, Any]] = {
    "sequence first": {},
    "batch first": {"batch_first": True},
    "with weights": {"weights": True, "batch_first": True},
    "padding mask": {"masks": "padding", "batch_first": True},
    "causal mask": {"masks": "causal"},
    "both masks and weights": {"masks": "padding causal", "weights": True, "batch_first": True},
    "cross": {"cross": True, "batch_first": True},
    "separate projections": {"cross": True, "kdim": 10, "vdim": 14},
    "no bias": {"bias": False, "batch_first": True},
    "key and value bias": {"add_bias_kv": True, "masks": "padding causal"},
    "zero attention": {"add_zero_attn": True, "masks": "causal", "weights": True},
    "everything": {
        "add_bias_kv": True, "add_zero_attn": True, "cross": True, "kdim": 10, "vdim": 14,
        "masks": "padding causal", "batch_first": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_multihead_attention_loses_heads(case: str) -> None:
    model = randomised(Attend(**CASES[case]))
    x = draw(BATCH, LENGTH, WIDTH) if model.first else draw(LENGTH, BATCH, WIDTH)
    groups = discover(model, x)
    heads = [g for g in groups.prunable if g.kind == "heads"]
    assert [g.width for g in heads] == [4], groups.table()
    workspace = Workspace(groups)
    for seed, keep in enumerate((0.25, 0.5, 0.75, 1.0)):
        plan = random_plan(groups, seed, keep)
        small = build(groups, plan)
        assert verify(groups, small, plan) <= 1e-10
        assert verify(groups, workspace.build(plan), plan) <= 1e-10
        assert small.attention.num_heads == plan.widths["attention"]
        assert isinstance(small.attention, nn.MultiheadAttention)
    assert stock_class(type(model.attention)) is type(model.attention)


def test_adaptive_attention_equals_the_stock_class_when_dense() -> None:
    for case, options in CASES.items():
        model = randomised(Attend(**options))
        x = draw(BATCH, LENGTH, WIDTH) if model.first else draw(LENGTH, BATCH, WIDTH)
        adaptive = copy.deepcopy(model)
        adaptive.attention.__class__ = adaptive_class(nn.MultiheadAttention)
        torch.testing.assert_close(adaptive(x), model(x), rtol=0, atol=1e-12, msg=case)


def test_unbatched_attention_and_returned_weights() -> None:
    stock = randomised(nn.MultiheadAttention(WIDTH, 4))
    adaptive = copy.deepcopy(stock)
    adaptive.__class__ = adaptive_class(nn.MultiheadAttention)
    x = draw(LENGTH, WIDTH)
    for average in (True, False):
        want = stock(x, x, x, average_attn_weights=average)
        got = adaptive(x, x, x, average_attn_weights=average)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_a_mask_for_every_head_freezes_the_heads() -> None:
    class PerHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(WIDTH, 4, batch_first=True)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]

    model = randomised(PerHead())
    groups = discover(model, (draw(BATCH, LENGTH, WIDTH), draw(BATCH * 4, LENGTH, LENGTH)))
    assert not any(g.kind == "heads" for g in groups.prunable)
    assert any("fixed" in g.reason for g in groups), groups.table()


def test_used_attention_weights_freeze_the_heads() -> None:
    class Shown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(WIDTH, 4, batch_first=True)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.attention(x, x, x)

    groups = discover(randomised(Shown()), draw(BATCH, LENGTH, WIDTH))
    assert not any(g.kind == "heads" for g in groups.prunable), groups.table()


def transformer(norm_first: bool = False, layers: int = 2) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        WIDTH, 4, 40, batch_first=True, norm_first=norm_first, dropout=0.1
    )
    model = nn.TransformerEncoder(layer, layers, enable_nested_tensor=not norm_first)
    return randomised(model)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_encoder_and_its_fused_path(norm_first: bool) -> None:
    model = transformer(norm_first)
    x = draw(BATCH, LENGTH, WIDTH)
    padding = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    padding[1, 3:] = True
    groups = discover(model, {"src": x, "src_key_padding_mask": padding})
    assert [g.kind for g in groups.prunable] == ["heads", "neurons"] * 2
    plan = random_plan(groups)
    small = build(groups, plan)
    assert verify(groups, small, plan) <= 1e-10
    with torch.no_grad():  # eval and no_grad: where the fused path would be taken
        small_out = small(x, src_key_padding_mask=padding)
        masked_out = masked_copy(groups, plan)(x, src_key_padding_mask=padding)
    shown = ~padding
    torch.testing.assert_close(small_out[shown], masked_out[shown], rtol=0, atol=1e-10)


def test_only_the_second_layer_loses_heads() -> None:
    model = transformer()
    x = draw(BATCH, LENGTH, WIDTH)
    padding = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    padding[1, 3:] = True
    groups = discover(model, x)
    name = next(g.name for g in reversed(groups.prunable) if g.kind == "heads")
    plan = Plan.from_widths(groups, {name: 2}, {g.name: torch.rand(g.width) for g in groups})
    small = build(groups, plan)
    with torch.no_grad():
        assert torch.isfinite(small(x, src_key_padding_mask=padding)).all()
    assert not small.use_nested_tensor
    assert model.use_nested_tensor


def test_encoder_decoder_transformer() -> None:
    class Translate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Transformer(
                WIDTH, 4, 1, 2, dim_feedforward=32, batch_first=True, dropout=0.0
            )

        def forward(self, source: Tensor, target: Tensor) -> Tensor:
            mask = nn.Transformer.generate_square_subsequent_mask(
                target.shape[1], dtype=target.dtype
            )
            return self.body(source, target, tgt_mask=mask, tgt_is_causal=True)

    model = randomised(Translate())
    groups = discover(model, (draw(BATCH, LENGTH, WIDTH), draw(BATCH, 4, WIDTH, seed=2)))
    assert sum(g.kind == "heads" for g in groups.prunable) == 5, groups.table()
    plan = random_plan(groups)
    assert verify(groups, build(groups, plan), plan) <= 1e-10


def test_a_users_subclass_keeps_its_own_forward() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), Residual(WIDTH, 4, batch_first=True))
    model = randomised(model)
    groups = discover(model, draw(BATCH, LENGTH, WIDTH))
    assert any(g.kind == "heads" for g in groups.prunable), groups.table()
    plan = random_plan(groups)
    small = build(groups, plan)
    assert verify(groups, small, plan) <= 1e-10
    assert isinstance(small[1], Residual)


class Residual(nn.MultiheadAttention):
    """A user's subclass that calls the stock forward."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x + super().forward(x, x, x, need_weights=False)[0]


def test_smaller_attention_trains_copies_exports_and_reloads() -> None:
    model = randomised(Attend(batch_first=True, masks="causal")).float().train()
    x = draw(BATCH, LENGTH, WIDTH).float()
    groups = discover(model, x)
    small = build(groups, random_plan(groups))
    assert small.training
    small(x).sum().backward()
    assert all(p.grad is not None for p in small.parameters())
    small.eval()
    twin = copy.deepcopy(small)
    twin.load_state_dict(small.state_dict())
    torch.testing.assert_close(twin(x), small(x))
    assert set(small.state_dict()) == set(model.state_dict())
    exported = torch.export.export(small, (x,)).module()
    torch.testing.assert_close(exported(x), small(x))


def test_a_per_head_mask_given_to_a_smaller_attention_is_an_error() -> None:
    model = randomised(Attend(batch_first=True))
    groups = discover(model, draw(BATCH, LENGTH, WIDTH))
    small = build(groups, random_plan(groups))
    x = draw(BATCH, LENGTH, WIDTH)
    with pytest.raises(StructureError, match="give one mask for all heads"):
        small.attention(x, x, x, attn_mask=draw(BATCH * 4, LENGTH, LENGTH))


def window_attentions() -> dict[str, tuple[nn.Module, Tensor]]:
    from torchvision.models import maxvit, swin_transformer

    out: dict[str, tuple[nn.Module, Tensor]] = {}
    for name in ("ShiftedWindowAttention", "ShiftedWindowAttentionV2"):
        for shift in (0, 2):
            kind = getattr(swin_transformer, name)
            out[f"{name} {shift}"] = kind(WIDTH, [4, 4], [shift, shift], 4), (2, 6, 7, WIDTH)
    relative = maxvit.RelativePositionalMultiHeadAttention(WIDTH, 6, 16)
    out["MaxViT"] = relative, (2, 3, 16, WIDTH)
    return out


@pytest.mark.parametrize("name", list(window_attentions()))
def test_window_attention_loses_heads(name: str) -> None:
    attention, shape = window_attentions()[name]
    model = randomised(nn.Sequential(attention, nn.Linear(WIDTH, 3)))
    x = draw(*shape)
    groups = discover(model, x)
    assert [g.width for g in groups.prunable if g.kind == "heads"] == [4], groups.table()
    workspace = Workspace(groups)
    for seed in range(3):
        plan = random_plan(groups, seed)
        assert verify(groups, build(groups, plan), plan) <= 1e-10
        assert verify(groups, workspace.build(plan), plan) <= 1e-10


@pytest.mark.parametrize("whole", [("a",), ("i",), ("i", "a.out_proj"), ()])
def test_attention_between_layers_that_shrink(whole: tuple[str, ...]) -> None:
    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.i, self.a = nn.Linear(6, 16), nn.MultiheadAttention(16, 4, batch_first=True)
            self.o = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(self.i(x))
            out: Tensor = self.o(self.a(h, h, h, need_weights=False)[0])
            return out

    torch.manual_seed(0)
    model, x = Between().double().eval(), torch.randn(2, 5, 6, dtype=torch.float64)
    groups = discover(model, x)
    assert [g.name for g in groups.prunable] == ["i", "a", "a.out_proj"]
    plan = uneven_plan(groups, Bonds(whole))
    small = build(groups, plan)
    assert difference(masked_copy(groups, plan), small, x).agrees
    assert small.a.embed_dim == small.o.in_features
