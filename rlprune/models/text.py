"""Small transformers on tokens: a classifier of texts and a language model."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlprune.models.registry import register


class Block(nn.Module):
    """Self-attention and a feed-forward layer, each behind a layer norm and around a shortcut.

    Args:
        width: Numbers per token.
        heads: Attention heads; ``width`` is a multiple of it.
        hidden: Neurons of the feed-forward layer.
        dropout: Of both layers' outputs.
        causal: Whether tokens see only those before them.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float = 0.0, causal: bool = False
    ) -> None:
        super().__init__()
        self.head_size, self.causal = width // heads, causal
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[N, T, width]`` to the same shape; ``mask`` ``[N, 1, 1, T]`` is true for tokens."""
        n, length, _ = x.shape
        y = self.norm1(x)
        q, k, v = (
            layer(y).view(n, length, -1, self.head_size).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        y = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=self.causal and mask is None
        )
        x = x + self.dropout(self.out(y.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.down(functional.gelu(self.up(self.norm2(x)))))


class _Tokens(nn.Module):
    """Embeddings of tokens and positions, and the blocks on top of them."""

    def __init__(
        self,
        vocab_size: int,
        width: int,
        depth: int,
        heads: int,
        max_length: int,
        dropout: float,
        causal: bool,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(max_length, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, 4 * width, dropout, causal) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        for table in (self.tokens, self.positions):
            nn.init.normal_(table.weight, std=0.02)

    def read(self, input_ids: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens ``[N, T]`` to ``[N, T, width]``."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.dropout(self.tokens(input_ids) + self.positions(places))
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)


class TextTransformer(_Tokens):
    """A transformer encoder, the mean over real tokens, a linear layer.

    Args:
        num_classes: Number of outputs.
        vocab_size: Tokens of the vocabulary.
        width: Numbers per token.
        depth: Blocks.
        heads: Attention heads per block.
        max_length: Longest text.
        dropout: While it is trained.
    """

    def __init__(
        self,
        num_classes: int = 2,
        vocab_size: int = 8192,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        max_length: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(vocab_size, width, depth, heads, max_length, dropout, causal=False)
        self.head = nn.Linear(width, num_classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Classify texts ``[N, T]`` of at most ``max_length`` tokens.

        Args:
            input_ids: Tokens ``[N, T]``.
            attention_mask: ``[N, T]``, 0 for padding; None where there is none.

        Returns:
            Logits ``[N, num_classes]``.
        """
        if attention_mask is None:
            return self.head(self.read(input_ids, None).mean(1))
        real = attention_mask.bool()
        x = self.read(input_ids, real[:, None, None, :])
        weight = real[:, :, None].to(x.dtype)
        return self.head((x * weight).sum(1) / weight.sum(1).clamp_min(1.0))


class CausalTransformer(_Tokens):
    """A transformer decoder: the next token at every position.

    Args:
        vocab_size: Tokens of the vocabulary.
        width: Numbers per token.
        depth: Blocks.
        heads: Attention heads per block.
        max_length: Longest text.
        dropout: While it is trained.
    """

    def __init__(
        self,
        vocab_size: int = 256,
        width: int = 96,
        depth: int = 3,
        heads: int = 4,
        max_length: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(vocab_size, width, depth, heads, max_length, dropout, causal=True)
        self.head = nn.Linear(width, vocab_size)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Tokens ``[N, T]`` to the logits of those that follow, ``[N, T, vocab_size]``."""
        return self.head(self.read(input_ids, None))


register("text_transformer")(TextTransformer)
register("causal_transformer")(CausalTransformer)
