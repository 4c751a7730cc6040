"""What both examples train: a small causal transformer on the characters of Python's own help texts."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, LAYERS, CONTEXT, BATCH = 64, 4, 2, 48, 16


class Block(nn.Module):
    """Causal self-attention and a two-layer network, each after a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Predicts the next character."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, WIDTH)
        self.position = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.position(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def groups(model: nn.Module) -> list[dict]:
    """Leave embeddings and head to the auxiliary AdamW; it also gets whatever is no matrix."""
    apart = ("embedding", "position", "head")
    named = list(model.named_parameters())
    return [
        {"params": [p for name, p in named if not any(part in name for part in apart)]},
        {"params": [p for name, p in named if any(part in name for part in apart)], "rule": "aux"},
    ]


def text() -> tuple[Tensor, int]:
    """Return the text as numbers, and how many different characters it has."""
    from pydoc_data.topics import topics

    whole = "".join(topics[name] for name in sorted(topics))
    code = {character: i for i, character in enumerate(sorted(set(whole)))}
    return torch.tensor([code[character] for character in whole]), len(code)


def batch(tokens: Tensor, step: int, rank: int, ranks: int) -> tuple[Tensor, Tensor]:
    """Return this rank's part of the step's batch, which does not depend on how many ranks there are."""
    generator = torch.Generator().manual_seed(step)
    start = torch.randint(len(tokens) - CONTEXT, (BATCH, 1), generator=generator)[rank::ranks]
    windows = tokens[start + torch.arange(CONTEXT + 1)]
    return windows[:, :-1], windows[:, 1:]


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of the next character in nats."""
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
