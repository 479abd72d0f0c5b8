"""torchvision's MaxViT attention with fewer heads than its feature width suggests."""

from __future__ import annotations

from torch import Tensor
from torchvision.models.maxvit import RelativePositionalMultiHeadAttention


class AdaptiveRelativePositionalMultiHeadAttention(RelativePositionalMultiHeadAttention):
    """Relative-position attention (Tu et al. 2022); ``n_heads`` may shrink, ``head_dim`` stays."""

    _rlprune_stock_class = RelativePositionalMultiHeadAttention

    def forward(self, x: Tensor) -> Tensor:
        """Attend within partitions. x: [batch, partitions, positions, features]."""
        q, k, v = (
            part.unflatten(-1, (-1, self.head_dim)).transpose(2, 3)
            for part in self.to_qkv(x).chunk(3, dim=-1)
        )
        scores = q @ (k * self.scale_factor).transpose(-2, -1)
        weights = (scores + self.get_relative_positional_bias()).softmax(-1)
        out: Tensor = self.merge((weights @ v).transpose(2, 3).flatten(3))
        return out
