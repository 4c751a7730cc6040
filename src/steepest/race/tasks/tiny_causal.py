"""A causal language model and a tokenizer made on the spot, where none is pretrained: for trying a real path.

Its text is the help that Python ships: prompts name a topic, answers are its paragraphs.
"""

from __future__ import annotations

from typing import Any

import torch

from steepest.race.tasks.pretrained import library, quiet
from steepest.race.tasks.questions import Question, Questions

TINY = "tiny"
HELP = "help"
WIDTH = 64
LAYERS = 2
HEADS = 4
LONGEST = 96
"""Characters of an answer."""


def tiny_tokenizer() -> Any:
    """Return a tokenizer of bytes: 256 tokens, one for each, and an end of text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    library("transformers")
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer: Any = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")


def tiny_model(vocabulary: int) -> Any:
    """Return Qwen2's architecture at width 64 with random weights, drawn from torch's generator."""
    transformers = library("transformers")
    config = transformers.Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        max_position_embeddings=512,
        use_cache=False,
    )
    with quiet(transformers):
        return transformers.AutoModelForCausalLM.from_config(config)


def with_own_tables(network: torch.nn.Module) -> torch.nn.Module:
    """Let the tables of tokens and the norms be trained beside adapters: no pretraining has taught them."""
    for name, parameter in network.named_parameters():
        if any(part in name for part in ("embed_tokens", "lm_head", "norm")):
            parameter.requires_grad_(True)
    return network


def python_help() -> Questions:
    """Return the paragraphs of Python's help topics; every tenth is for validation."""
    from pydoc_data.topics import topics

    asked = [
        Question(f"help({name!r})\n", (" ".join(paragraph.split())[:LONGEST],), 0)
        for name in sorted(topics)
        for paragraph in topics[name].split("\n\n")
        if len(paragraph.split()) > 4
    ]
    return Questions([q for i, q in enumerate(asked) if i % 10], asked[::10])
