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


def opt(folder: Path, **changes: Any) -> Path:
    """Every text begins with </s>, which ends it as well, as in the real one; narrow embeddings and norms after the layers, as in opt-350m."""
    from transformers import OPTConfig

    sizes = {"ffn_dim": 64, "max_position_embeddings": 2048, "vocab_size": VOCABULARY, "word_embed_proj_dim": 16, "do_layer_norm_before": False}
    sizes["init_std"] = SPREAD
    return save(folder, OPTConfig(**sizes, **WIDTH, **changes), bos="</s>", eos="</s>", pad="<pad>")


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


def gemma2(folder: Path) -> Path:
    from transformers import Gemma2Config

    sizes = {"intermediate_size": 64, "vocab_size": VOCABULARY, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": SPREAD}
    return save(folder, Gemma2Config(**sizes, **WIDTH), eos="</s>", pad="<pad>")


def falcon(folder: Path) -> Path:
    from transformers import FalconConfig

    return save(folder, FalconConfig(vocab_size=VOCABULARY, initializer_range=SPREAD, **WIDTH), eos="<|endoftext|>", pad="<pad>")


def gguf(folder: Path, name: str = "tiny.gguf") -> tuple[Path, Any]:
    """A llama in one GGUF file, written by the format's own package as llama.cpp lays it out, and the model it was made of."""
    import numpy
    import torch
    from gguf import GGUFWriter, TokenType
    from transformers import AutoModelForCausalLM, LlamaConfig

    vocabulary, special = _byte_vocabulary(), ["<|im_start|>", "<|im_end|>"]
    tokens = [*vocabulary, vocabulary[0] + vocabulary[1], *special]
    config = LlamaConfig(
        vocab_size=len(tokens), intermediate_size=64, max_position_embeddings=256, initializer_range=SPREAD, tie_word_embeddings=True,
        bos_token_id=257, eos_token_id=258, **WIDTH,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(config).float()
    folder.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(folder / name, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL] * (len(vocabulary) + 1) + [TokenType.CONTROL] * len(special))
    writer.add_token_merges([f"{vocabulary[0]} {vocabulary[1]}"])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(258)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}")
    for key, tensor in _as_llama_cpp(model):
        writer.add_tensor(key, numpy.ascontiguousarray(tensor.detach().numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / name, model


def _byte_vocabulary() -> list[str]:
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _as_llama_cpp(model: Any) -> Any:
    """Its names, and its order of rows in the two projections that are rotated."""
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    state = model.state_dict()
    yield "token_embd.weight", state["model.embed_tokens.weight"]
    yield "output_norm.weight", state["model.norm.weight"]
    for layer in range(2):
        for ours, theirs in names.items():
            tensor = state[f"model.layers.{layer}.{ours}.weight"]
            if theirs in ("attn_q", "attn_k"):
                tensor = tensor.reshape(4, 2, 4, 32).swapaxes(1, 2).reshape(32, 32)
            yield f"blk.{layer}.{theirs}.weight", tensor
