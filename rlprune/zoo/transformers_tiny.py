"""Hugging Face models at toy size, built from a config (optional extra ``hf``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

VOCABULARY = 99
_ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 40,
}
_DECODER = _ENCODER | {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8}


def _ids(length: int = 10) -> Tensor:
    return torch.randint(2, VOCABULARY, (2, length))


def _padded() -> dict[str, Any]:
    mask = torch.ones(2, 10, dtype=torch.long)
    mask[1, 7:] = 0
    return {"input_ids": _ids(), "attention_mask": mask}


def _bert(tf: Any) -> tuple[type[Any], Any, dict[str, Any]]:
    return tf.BertForSequenceClassification, tf.BertConfig(**_ENCODER), _padded()


def _roberta(tf: Any) -> tuple[type[Any], Any, dict[str, Any]]:
    return tf.RobertaForSequenceClassification, tf.RobertaConfig(**_ENCODER), _padded()


def _distilbert(tf: Any) -> tuple[type[Any], Any, dict[str, Any]]:
    config = tf.DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=64,
        n_layers=2,
        n_heads=4,
        hidden_dim=96,
        max_position_embeddings=40,
    )
    return tf.DistilBertForSequenceClassification, config, _padded()


def _gpt2(tf: Any) -> tuple[type[Any], Any, dict[str, Any]]:
    config = tf.GPT2Config(
        vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=4, n_positions=40, bos_token_id=0,
        eos_token_id=1,
    )  # fmt: skip
    return tf.GPT2LMHeadModel, config, _padded()


def _gpt_neox(tf: Any) -> tuple[type[Any], Any, dict[str, Any]]:
    return tf.GPTNeoXForCausalLM, tf.GPTNeoXConfig(**_ENCODER), _padded()


def _llama(tf: Any) -> tuple[type[Any], Any, dict[str, Any]]:
    return tf.LlamaForCausalLM, tf.LlamaConfig(**_DECODER), _padded()


def _qwen3(tf: Any) -> tuple[type[Any], Any, dict[str, Any]]:
    return tf.Qwen3ForCausalLM, tf.Qwen3Config(**_DECODER), {"input_ids": _ids()}


def _t5(tf: Any) -> tuple[type[Any], Any, dict[str, Any]]:
    config = tf.T5Config(
        vocab_size=VOCABULARY, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4
    )
    return tf.T5ForConditionalGeneration, config, _padded() | {"decoder_input_ids": _ids(6)}


def _t5_gated(tf: Any) -> tuple[type[Any], Any, dict[str, Any]]:
    config = tf.T5Config(
        vocab_size=VOCABULARY, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return tf.T5EncoderModel, config, _padded()


def _vit(tf: Any) -> tuple[type[Any], Any, dict[str, Any]]:
    config = tf.ViTConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
        image_size=32, patch_size=8,
    )  # fmt: skip
    return tf.ViTForImageClassification, config, {"pixel_values": torch.randn(2, 3, 32, 32)}


def _whisper(tf: Any) -> tuple[type[Any], Any, dict[str, Any]]:
    config = tf.WhisperConfig(
        vocab_size=VOCABULARY, d_model=64, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=96,
        decoder_ffn_dim=96, max_source_positions=20, max_target_positions=20, num_mel_bins=16,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    inputs = {"input_features": torch.randn(2, 16, 40), "decoder_input_ids": _ids(6)}
    return tf.WhisperForConditionalGeneration, config, inputs


def _albert(tf: Any) -> tuple[type[Any], Any, dict[str, Any]]:
    config = tf.AlbertConfig(**_ENCODER, embedding_size=16)
    return tf.AlbertForSequenceClassification, config, _padded()


def _codegen(tf: Any) -> tuple[type[Any], Any, dict[str, Any]]:
    config = tf.CodeGenConfig(
        vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=4, n_positions=40, n_ctx=40,
        rotary_dim=8, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return tf.CodeGenForCausalLM, config, _padded()


def _mixtral(tf: Any) -> tuple[type[Any], Any, dict[str, Any]]:
    config = tf.MixtralConfig(
        **_DECODER, num_local_experts=4, num_experts_per_tok=2, sliding_window=None
    )
    config._experts_implementation = "eager"
    return tf.MixtralForCausalLM, config, _padded()


def _bart(tf: Any) -> tuple[type[Any], Any, dict[str, Any]]:
    config = tf.BartConfig(
        vocab_size=VOCABULARY, d_model=64, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=96,
        decoder_ffn_dim=96, max_position_embeddings=40, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1, forced_eos_token_id=2,
    )  # fmt: skip
    return tf.BartForConditionalGeneration, config, _padded() | {"decoder_input_ids": _ids(6)}


def _clip(tf: Any) -> tuple[type[Any], Any, dict[str, Any]]:
    layers = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "projection_dim": 32,
    }  # fmt: skip
    config = tf.CLIPConfig(
        text_config=layers
        | {"vocab_size": VOCABULARY, "max_position_embeddings": 40, "eos_token_id": 98},
        vision_config=layers | {"image_size": 32, "patch_size": 8},
        projection_dim=32,
    )
    return tf.CLIPModel, config, _padded() | {"pixel_values": torch.randn(2, 3, 32, 32)}


BUILDERS: dict[str, Callable[[Any], tuple[type[Any], Any, dict[str, Any]]]] = {
    "albert": _albert,
    "bart": _bart,
    "bert": _bert,
    "clip": _clip,
    "codegen": _codegen,
    "roberta": _roberta,
    "distilbert": _distilbert,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "llama": _llama,
    "mixtral": _mixtral,
    "qwen3": _qwen3,
    "t5": _t5,
    "t5-gated": _t5_gated,
    "vit": _vit,
    "whisper": _whisper,
}


def build(name: str, attention: str | None = "sdpa") -> tuple[nn.Module, dict[str, Any]]:
    """A toy model and its keyword inputs.

    Args:
        name: a key of `BUILDERS`.
        attention: "sdpa" or "eager"; None for what transformers would choose.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    kind, config, inputs = BUILDERS[name](transformers)
    model: nn.Module = kind._from_config(config, attn_implementation=attention)
    return model, inputs
