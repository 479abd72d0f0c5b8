"""Any Hugging Face class at toy size: its configuration with every size made small.

Names of sizes are alike over the library (``hidden_size``, ``d_model``, ``n_embd``; see `TINY`), so
one table shrinks nearly every configuration. What a class is called with follows from its main
input and from whether it has a decoder.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.errors import RlpruneError
from rlprune.inputs import to_device

LARGEST = 20_000_000
"""Parameters that a model may have at toy size: a backbone with sizes of its own stays large."""
VOCABULARY, LENGTH = 99, 10
WIDTH, HEADS, KEYS, INNER, LAYERS = 64, 4, 2, 96, 2

TINY: dict[str, int] = {
    r"(.*_)?vocab_size|vocab_size_or_config_json_file": VOCABULARY,
    r"type_vocab_size": 2,
    r"(.*_)?hidden_size|d_model|n_embd|dim|embed_dim|model_dim|embedding_size|word_embed_proj_dim|"
    r"projection_dim|decoder_hidden_size|encoder_hidden_dim|emb_dim|hidden_dim|lru_width|"
    r"qk_dim|attention_hidden_size|classifier_proj_size|logit_input_dim": WIDTH,
    r"(.*_)?intermediate_size|.*ffn_dim|d_ff|n_inner|ffn_hidden_size|ffn_embed_dim|"
    r"moe_intermediate_size|.*feedforward_dim|dim_feedforward|intermediate_dim|mlp_dim": INNER,
    r"num_attention_heads|n_heads?|num_heads|.*attention_heads|nhead|num_decoder_attention_heads":
        HEADS,
    r"num_key_value_heads|num_kv_heads|n_head_kv|num_kv": KEYS,
    r"head_dim|d_kv|attention_head_dim|kv_channels|qk_rope_head_dim|qk_nope_head_dim|v_head_dim|"
    r"global_head_dim|linear_key_head_dim|linear_value_head_dim": WIDTH // HEADS,
    r"qk_head_dim": WIDTH // HEADS * 2,
    r"kv_lora_rank|q_lora_rank": 32,
    r"linear_num_key_heads": 2,
    r"linear_num_value_heads": 4,
    r"num_hidden_layers|n_layers?|num_layers|.*_layers|num_blocks|encoder_layers|decoder_layers|"
    r"num_decoder_layers|num_encoder_layers": LAYERS,
    r"max_position_embeddings|n_positions|n_ctx|max_seq_len|max_sequence_length|max_source_positions|"
    r"max_target_positions|original_max_position_embeddings": 64,
    r"num_experts|num_local_experts|n_routed_experts|moe_num_experts": 4,
    r"num_experts_per_tok|moe_k|experts_per_token|num_selected_experts": 2,
    r"n_group|topk_group|first_k_dense_replace|moe_layer_start_index": 1,
    r"shared_expert_intermediate_size|moe_shared_expert_intermediate_size": 48,
    r"image_size|img_size|input_size": 32,
    r"patch_size": 8,
    r"num_mel_bins|num_mel_channels|feature_size|input_feat_per_channel": 16,
    r"pad_token_id": 0,
    r"bos_token_id|decoder_start_token_id|forced_bos_token_id|mask_token_id": 1,
    r"eos_token_id|sep_token_id|forced_eos_token_id": 2,
    r"image_token_id|image_token_index|video_token_id|audio_token_id|audio_token_index": 3,
    r"num_queries": 5,
    r"conv_depthwise_kernel_size": 3,
    r"num_conv_pos_embeddings": 16,
    r"num_conv_pos_embedding_groups": 4,
    r"rotary_dim": 8,
    r"state_size|ssm_state_size|mamba_d_state": 8,
    r"time_step_rank|mamba_dt_rank": 4,
    r"sliding_window|attention_window|local_attention|window": 8,
    r"decoder_layerdrop|encoder_layerdrop|layerdrop": 0,
}  # fmt: skip
"""Patterns of names of configuration values, and what they become; the first match counts."""
LISTS = {
    r"hidden_sizes|embed_dims|dims|encoder_hidden_sizes|neck_hidden_sizes|decoder_hidden_sizes":
        (16, 32, 48, 64, 64, 64),
    r"depths|layer_depths|num_blocks": (1,) * 8,
    r"num_attention_heads|num_heads": (1, 2, 3, 4, 4, 4),
}  # fmt: skip
_MAPPINGS = (
    "SPEECH_SEQ_2_SEQ", "SEQ_TO_SEQ_CAUSAL_LM", "CAUSAL_LM", "SEQUENCE_CLASSIFICATION", "MASKED_LM",
    "IMAGE_CLASSIFICATION", "SEMANTIC_SEGMENTATION", "DEPTH_ESTIMATION", "OBJECT_DETECTION",
    "UNIVERSAL_SEGMENTATION", "CTC", "AUDIO_CLASSIFICATION",
    "IMAGE_TO_IMAGE", "ZERO_SHOT_IMAGE_CLASSIFICATION", "QUESTION_ANSWERING",
    "IMAGE_TEXT_TO_TEXT", "TIME_SERIES_PREDICTION",
)  # fmt: skip


class UnbuiltError(RlpruneError):
    """A class is not built from a toy configuration: nothing is known of how it is covered."""


def candidates() -> dict[str, str]:
    """One class of every model type that has a task's head, or else the bare one: type -> class."""
    from transformers.models.auto import modeling_auto

    found: dict[str, str] = {}
    tables = [f"MODEL_FOR_{m}_MAPPING_NAMES" for m in _MAPPINGS] + ["MODEL_MAPPING_NAMES"]
    for table in tables:
        for kind, classes in getattr(modeling_auto, table, {}).items():
            found.setdefault(kind, classes if isinstance(classes, str) else classes[0])
    return dict(sorted(found.items()))


def tiny(kind: type[Any], **more: Any) -> Any:
    """A configuration of a class with its sizes made small.

    Args:
        kind: the configuration's class.
        **more: values that are set as they are.
    """
    values = dict(_shrunk(kind))
    return kind(**(values | more))


def _shrunk(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    default = kind()
    nested = getattr(kind, "sub_configs", {})
    layers = LAYERS
    for name, value in default.to_dict().items():
        if name in nested:
            sub = nested[name]
            if isinstance(value, Mapping) and inspect.isclass(sub) and sub.__name__ != "AutoConfig":
                yield name, dict(_shrunk(sub))
        elif name == "layer_types" and isinstance(value, list) and value:
            yield name, [value[0], value[-1]][:layers]
        elif isinstance(value, bool) or value is None:
            continue
        elif isinstance(value, int):
            small = _match(TINY, name)
            if small is not None and (value > small or name.endswith(("_id", "_index"))):
                yield name, small
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], int):
            row = _match(LISTS, name)
            if row is not None:
                yield name, list(row[: len(value)])


def _match(table: Mapping[str, Any], name: str) -> Any:
    return next((v for pattern, v in table.items() if re.fullmatch(pattern, name)), None)


def build(name: str, attention: str | None = "sdpa") -> tuple[nn.Module, dict[str, Any]]:
    """A toy model of a class of transformers and its keyword inputs.

    Args:
        name: of the class.
        attention: "sdpa" or "eager"; None for what transformers would choose.

    Raises:
        UnbuiltError: the configuration does not take small sizes, or the model does not run in it.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    try:
        kind = getattr(transformers, name)
        try:
            model: nn.Module = kind._from_config(_config(kind), attn_implementation=attention)
        except (ValueError, ImportError):  # it has no such attention
            model = kind._from_config(_config(kind))
        if sum(p.numel() for p in model.parameters()) > LARGEST:
            raise ValueError("it stays large")
        inputs = inputs_of(model)
        with torch.no_grad():  # some cast to a smaller type in a way that float64 does not survive
            model.double().eval()(**to_device(inputs, "cpu", torch.float64))
    except Exception as error:  # whatever one of hundreds of classes objects to
        text = str(error).strip().split("\n")[0]
        raise UnbuiltError(f"{name} at toy size: {type(error).__name__}: {text}") from error
    return model, inputs


def _config(kind: Any) -> Any:
    """A tiny configuration of a model's class, with experts that run one by one."""
    config = tiny(kind.config_class)
    for part in (config, *(getattr(config, n) for n in getattr(config, "sub_configs", {}))):
        if hasattr(part, "_experts_implementation"):
            part._experts_implementation = "eager"
    return config


def inputs_of(model: Any) -> dict[str, Any]:
    """What a model is called with: two samples of its main input, and what goes with it."""
    takes = inspect.signature(model.forward).parameters
    config = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    found: dict[str, Any] = {}
    ids = torch.randint(4, VOCABULARY, (2, LENGTH))
    if "input_ids" in takes and model.main_input_name in ("input_ids", "pixel_values"):
        found["input_ids"] = ids
        if "attention_mask" in takes:
            found["attention_mask"] = torch.ones(2, LENGTH, dtype=torch.long)
    if model.main_input_name == "pixel_values" or "pixel_values" in takes:
        found["pixel_values"] = _pictures(config)
    if model.main_input_name in ("input_features", "input_values"):
        found[model.main_input_name] = _sounds(model.main_input_name, config)
    if getattr(text, "is_encoder_decoder", False) and "decoder_input_ids" in takes:
        found["decoder_input_ids"] = torch.randint(4, VOCABULARY, (2, 6))
    if "use_cache" in takes:
        found["use_cache"] = False
    return found


def _pictures(config: Any) -> Tensor:
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", 32)
    height, width = (size, size) if isinstance(size, int) else (size[0], size[1])
    return torch.randn(2, getattr(vision, "num_channels", 3), height, width)


def _sounds(name: str, config: Any) -> Tensor:
    if name == "input_values":
        return torch.randn(2, 1600)
    return torch.randn(2, getattr(config, "num_mel_bins", 16), 128)
