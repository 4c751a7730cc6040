"""A small causal transformer: learned positions, LayerNorm before each part, GELU, an untied head."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Causal self-attention and a two-layer network of four times the width, each after a LayerNorm.

    Queries, keys and values are matrices of their own, as optimizers of matrices want them.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map batch x time x width to the same shape."""
        h = self.norm1(x)
        q, k, v = (
            f(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value)
        )
        lost = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=lost, is_causal=True)
        x = x + F.dropout(self.out(attended.transpose(1, 2).flatten(2)), lost)
        return x + F.dropout(self.down(F.gelu(self.up(self.norm2(x)))), lost)


class Transformer(nn.Module):
    """Logits of the next symbol at every place of a sequence of at most ``context`` symbols."""

    def __init__(
        self, vocabulary: int, *, context: int, width: int, heads: int, layers: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for table in (self.embedding, self.position):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map batch x time integers to batch x time x vocabulary logits."""
        x = self.embedding(tokens) + self.position.weight[: tokens.shape[1]]
        x = F.dropout(x, self.dropout, self.training)
        return self.head(self.norm(self.blocks(x)))


AUXILIARY = ("embedding.*", "position.*", "head.*")
"""What a hybrid optimizer leaves to its auxiliary rule."""
