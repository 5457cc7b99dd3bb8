"""Models of a few thousand weights, made from config: the architectures of the real ones in place of their downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_material import byte_tokenizer

WIDTH = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
VOCABULARY = 258
"""256 bytes and two special tokens."""
SPREAD = 0.2
"""Ten times the usual: adapters that cannot touch a frozen head learn nothing through one of nearly zero."""


def save(folder: Path, config: Any, **tokenizer: str) -> Path:
    """A model folder with random weights and a tokenizer in which every byte is a token."""
    import torch
    from transformers import AutoModelForCausalLM

    byte_tokenizer(folder, **tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def llama(folder: Path, **changes: Any) -> Path:
    from transformers import LlamaConfig

    sizes = {"intermediate_size": 64, "max_position_embeddings": 256, "vocab_size": VOCABULARY, "initializer_range": SPREAD, **WIDTH, **changes}
    return save(folder, LlamaConfig(**sizes), eos="</s>", pad="<pad>")


def opt(folder: Path) -> Path:
    """Every text begins with </s>, which ends it as well, as in the real one; narrow embeddings and norms after the layers, as in opt-350m."""
    from transformers import OPTConfig

    sizes = {"ffn_dim": 64, "max_position_embeddings": 2048, "vocab_size": VOCABULARY, "word_embed_proj_dim": 16, "do_layer_norm_before": False}
    sizes["init_std"] = SPREAD
    return save(folder, OPTConfig(**sizes, **WIDTH), bos="</s>", eos="</s>", pad="<pad>")


def phi(folder: Path) -> Path:
    from transformers import PhiConfig

    return save(
        folder, PhiConfig(intermediate_size=64, max_position_embeddings=2048, vocab_size=VOCABULARY, partial_rotary_factor=0.5, **WIDTH),
        eos="<|endoftext|>",
    )  # fmt: skip


def gpt2(folder: Path) -> Path:
    from transformers import GPT2Config

    return save(folder, GPT2Config(vocab_size=257, n_embd=32, n_layer=2, n_head=4, n_positions=512), eos="<|endoftext|>")


def stablelm(folder: Path) -> Path:
    from transformers import StableLmConfig

    sizes = {"intermediate_size": 64, "max_position_embeddings": 16384, "vocab_size": VOCABULARY, "num_key_value_heads": 4}
    return save(folder, StableLmConfig(**sizes, **WIDTH), eos="<|endoftext|>")
