"""A network of transformers as a GGUF file.

llama.cpp's ``llama`` graph has one number of heads and one feed-forward width for all layers; its
``deci`` graph, made for NVIDIA's Nemotron networks, computes the same with numbers of each layer's
own, and layers without attention. Its layers without a feed-forward part lose their attention, too:
such a layer cannot be said.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from rlprune.errors import ConfigError
from rlprune.files import write_atomically
from rlprune.integrations.gguf.tokenizer import add_tokenizer
from rlprune.integrations.hf.architecture import dense_class, is_stand_in
from rlprune.integrations.hf.expression import express
from rlprune.progress import track

log = logging.getLogger(__name__)

FAMILIES = ("LlamaForCausalLM", "MistralForCausalLM")
BLOCK = 32
"""Weights in a block of the simple quantised types."""


@dataclass(frozen=True)
class Layer:
    """Sizes of one layer.

    Attributes:
        heads: query heads; 0 without attention.
        kv_heads: key-value heads.
        feed_forward: width of the feed-forward part; 0 without one.
    """

    heads: int
    kv_heads: int
    feed_forward: int


def save_gguf(
    model: Any,
    file: str | Path,
    tokenizer: Any = None,
    *,
    dtype: str = "F16",
    progress: bool | None = None,
) -> dict[str, Any]:
    """Write a Llama or Mistral, pruned or not, as GGUF.

    Args:
        model: a network of transformers; not changed.
        file: what is written.
        tokenizer: its fast tokenizer; llama.cpp needs one, the ``gguf`` package does not.
        dtype: type of the matrices by gguf's name: ``F32``, ``F16``, ``BF16``, ``Q8_0``, ``Q4_0``
            and the other types that the ``gguf`` package quantises to. Matrices whose rows are no
            whole blocks are stored as F16, vectors as F32.
        progress: draw a bar; None draws one on a terminal.

    transformers reads the file back where layers are alike and heads fill the hidden width.

    Returns:
        ``architecture`` (``llama``, or ``deci`` where layers differ) and ``layers``, their sizes.

    Raises:
        ConfigError: the network is none of the Llama family or a layer of it cannot be said; the
            ``gguf`` package is not there or does not know the type.
    """
    gguf = package()
    kind = type_of(gguf, dtype)
    check_family(model)
    found = express(model)
    network, config = found.model, found.config
    layers = [_sizes(at, layer, network) for at, layer in enumerate(network.model.layers)]
    uneven = len(set(layers)) > 1
    arch = gguf.MODEL_ARCH.DECI if uneven else gguf.MODEL_ARCH.LLAMA
    name = gguf.MODEL_ARCH_NAMES[arch]
    target = Path(file).expanduser()

    def write(path: Path) -> None:
        writer = gguf.GGUFWriter(path, name)
        _describe(writer, config, layers, target.stem)
        if kind == gguf.GGMLQuantizationType.BF16:
            writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
        else:
            types = {"F32": "ALL_F32"}
            writer.add_file_type(gguf.LlamaFileType[types.get(dtype, f"MOSTLY_{dtype}")])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        if tokenizer is not None:
            add_tokenizer(writer, tokenizer, int(config.vocab_size))
        names = gguf.get_tensor_name_map(arch, len(layers))
        for key, tensor in track(list(_tensors(network, layers)), "gguf", show=progress):
            there = names.get_name(key, try_suffixes=(".weight", ".bias"))
            if there is None:
                raise ConfigError(f"GGUF has no place for the tensor '{key}' in {name}")
            _add(gguf, writer, there, tensor, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    write_atomically(target, write)
    log.info("%s: %s of %d layers, %s", target, name, len(layers), dtype)
    return {"architecture": name, "layers": [vars(layer) for layer in layers], "dtype": dtype}


def package() -> Any:
    """The ``gguf`` package.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise ConfigError("GGUF needs the gguf package: pip install 'rlprune[gguf]'") from error
    return gguf


def type_of(gguf: Any, dtype: str) -> Any:
    """One of gguf's types by its name.

    Raises:
        ConfigError: there is none, or the package cannot make it.
    """
    types = gguf.GGMLQuantizationType
    if dtype not in types.__members__ or f"MOSTLY_{dtype}" not in (
        *gguf.LlamaFileType.__members__, "MOSTLY_F32"
    ):  # fmt: skip
        raise ConfigError(f"GGUF has no type {dtype!r}; F32, F16, BF16, Q8_0 and Q4_0 are some")
    kind = types[dtype]
    try:
        gguf.quants.quantize(np.zeros((1, 256), dtype=np.float32), kind)
    except NotImplementedError as error:
        raise ConfigError(f"the gguf package does not quantise to {dtype}; use Q8_0") from error
    return kind


def check_family(model: nn.Module) -> None:
    """Make sure that GGUF can say a network's layers.

    Raises:
        ConfigError: it is no Llama, or has a form of it that is not written.
    """
    kind = dense_class(model).__name__
    if kind not in FAMILIES:
        raise ConfigError(f"GGUF is written for {' and '.join(FAMILIES)}, not for {kind}")
    config: Any = model.config
    rope = _rope(config)[1]
    if rope not in ("default", "linear"):
        raise ConfigError(f"GGUF is not written for rope scaling {rope!r}")
    window = getattr(config, "sliding_window", None)
    if window is not None and window < config.max_position_embeddings:
        raise ConfigError(f"GGUF's llama graph has no sliding window, this network one of {window}")
    if config.hidden_act != "silu":
        raise ConfigError(f"GGUF's llama graph has silu, this network {config.hidden_act}")


def _sizes(at: int, layer: Any, model: Any) -> Layer:
    attention, forward = layer.self_attn, layer.mlp
    whole = not is_stand_in(attention)
    width = 0 if is_stand_in(forward) else int(forward.up_proj.out_features)
    if whole and not width:
        raise ConfigError(
            f"layer {at} has attention and no feed-forward part: llama.cpp's deci graph leaves out "
            "both; drop whole layers (structure.depth=layers)"
        )
    size = int(attention.head_dim) if whole else 1
    return Layer(
        int(attention.q_proj.out_features) // size if whole else 0,
        int(attention.k_proj.out_features) // size if whole else 0,
        width,
    )


def _describe(writer: Any, config: Any, layers: list[Layer], name: str) -> None:
    """Everything but tensors and tokens."""
    writer.add_name(name)
    size = int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    theta, rope = _rope(config)
    writer.add_vocab_size(int(config.vocab_size))
    writer.add_context_length(int(config.max_position_embeddings))
    writer.add_embedding_length(int(config.hidden_size))
    writer.add_block_count(len(layers))
    writer.add_head_count(_one([layer.heads for layer in layers]))
    writer.add_head_count_kv(_one([layer.kv_heads for layer in layers]))
    writer.add_feed_forward_length(_one([layer.feed_forward for layer in layers]))
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(theta)
    writer.add_layer_norm_rms_eps(float(config.rms_norm_eps))
    if rope == "linear":
        import gguf

        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(_parameters(config)["factor"]))


def _one(values: list[int]) -> int | list[int]:
    """One number where all layers have the same."""
    return values[0] if len(set(values)) == 1 else values


def _parameters(config: Any) -> dict[str, Any]:
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    return dict(found or {})


def _rope(config: Any) -> tuple[float, str]:
    """Base of the rotary frequencies and how they are scaled."""
    parameters = _parameters(config)
    theta = parameters.get("rope_theta", getattr(config, "rope_theta", None))
    return float(theta or 10000.0), str(parameters.get("rope_type", "default"))


def _tensors(model: Any, layers: list[Layer]) -> Iterator[tuple[str, Tensor]]:
    """Tensors by transformers' names, rotary halves in llama.cpp's order."""
    tied = model.lm_head.weight is model.model.embed_tokens.weight
    for key, tensor in model.state_dict().items():
        if tied and key == "lm_head.weight":
            continue
        parts = key.split(".")
        if parts[:2] == ["model", "layers"]:
            layer = layers[int(parts[2])]
            if not layer.heads and parts[3] == "input_layernorm":
                continue  # what it normalises for is gone
            heads = {"q_proj": layer.heads, "k_proj": layer.kv_heads}.get(parts[-2])
            if heads:
                tensor = _interleaved(tensor, heads)
        yield key, tensor


def _interleaved(tensor: Tensor, heads: int) -> Tensor:
    """Rows of rotary heads as neighbouring pairs in place of two halves, [rows, ...]."""
    rows = tensor.shape[0]
    halves = tensor.reshape(heads, 2, rows // heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def _add(gguf: Any, writer: Any, name: str, tensor: Tensor, kind: Any) -> None:
    types = gguf.GGMLQuantizationType
    values = tensor.detach().float().cpu().contiguous().numpy()
    if values.ndim == 1:
        kind = types.F32
    elif values.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
        kind = types.F16
    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
