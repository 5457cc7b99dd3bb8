"""Configs of models that people train, written from their cards: for comparing estimates with traces."""

from __future__ import annotations

from typing import Any

import transformers as t


def _llama_like(kind: Any, hidden: int, inner: int, layers: int, heads: int, groups: int, vocabulary: int, *, tied: bool = False, **more: Any) -> Any:
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads}
    return kind(**sizes, num_key_value_heads=groups, vocab_size=vocabulary, max_position_embeddings=4096, tie_word_embeddings=tied, **more)


_OPT = {"hidden_size": 1024, "ffn_dim": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "vocab_size": 50272}
MODELS: dict[str, Any] = {
    "gpt2": t.GPT2Config(),
    "opt-350m": t.OPTConfig(**_OPT, word_embed_proj_dim=512, do_layer_norm_before=False),
    "opt-1.3b": t.OPTConfig(hidden_size=2048, ffn_dim=8192, num_hidden_layers=24, num_attention_heads=32, vocab_size=50272, word_embed_proj_dim=2048),
    "phi-2": _llama_like(t.PhiConfig, 2560, 10240, 32, 32, 32, 51200, partial_rotary_factor=0.4),
    "stablelm-3b": _llama_like(t.StableLmConfig, 2560, 6912, 32, 32, 32, 50304),
    "smollm2-135m": _llama_like(t.LlamaConfig, 576, 1536, 30, 9, 3, 49152, tied=True),
    "tinyllama-1.1b": _llama_like(t.LlamaConfig, 2048, 5632, 22, 32, 4, 32000),
    "llama-2-7b": _llama_like(t.LlamaConfig, 4096, 11008, 32, 32, 32, 32000),
    "llama-3.2-1b": _llama_like(t.LlamaConfig, 2048, 8192, 16, 32, 8, 128256, tied=True),
    "llama-3.1-8b": _llama_like(t.LlamaConfig, 4096, 14336, 32, 32, 8, 128256),
    "mistral-7b-v0.3": _llama_like(t.MistralConfig, 4096, 14336, 32, 32, 8, 32768, sliding_window=None),
    "qwen2.5-0.5b": _llama_like(t.Qwen2Config, 896, 4864, 24, 14, 2, 151936, tied=True),
    "qwen2.5-7b": _llama_like(t.Qwen2Config, 3584, 18944, 28, 28, 4, 152064),
    "qwen3-0.6b": _llama_like(t.Qwen3Config, 1024, 3072, 28, 16, 8, 151936, tied=True, head_dim=128),
    "qwen3-8b": _llama_like(t.Qwen3Config, 4096, 12288, 36, 32, 8, 151936, head_dim=128),
}
