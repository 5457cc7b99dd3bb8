"""Packed documents do not read one another: tried on each family, in logits and gradients, with what the real collator tells of a row."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, PreTrainedModel
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from tui_ft.modeling import load, packing, varlen

SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", GROUPED),
    "qwen2": ("Qwen2Config", GROUPED),
    "qwen3": ("Qwen3Config", {**GROUPED, "head_dim": 8}),
    "mistral, sliding": ("MistralConfig", {**GROUPED, "sliding_window": 6}),
    "gemma": ("GemmaConfig", {**GROUPED, "head_dim": 8}),
    "gemma3, alternating": (
        "Gemma3TextConfig", {**GROUPED, "head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
    ),
    "phi": ("PhiConfig", SIZES),
    "stablelm": ("StableLmConfig", {**SIZES, "num_key_value_heads": 4}),
    "neox": ("GPTNeoXConfig", SIZES),
    "gpt2": ("GPT2Config", {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "opt": ("OPTConfig", {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "biogpt": ("BioGptConfig", SIZES),
}  # fmt: skip
FIXED = {
    "falcon": ("FalconConfig", {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}),
    "bloom": ("BloomConfig", {"vocab_size": 100, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "gemma2, soft cap": ("Gemma2Config", {**GROUPED, "head_dim": 8, "attn_logit_softcapping": 1.0}),
}
LENGTHS = (30, 5, 17, 1, 40)


def made(name: str, sizes: dict[str, Any], **dropout: float) -> PreTrainedModel:
    config = getattr(transformers, name)(**sizes, **dropout)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=load.attention_of(config, "sdpa"))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)  # ten times the usual: what leaks shall show
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_a_packed_row_are_those_of_its_documents(family: str) -> None:
    """OPT and BioGPT leak with the usual attention; with ours they do not."""
    model = made(*FAMILIES[family]).eval()
    leaks_as_it_is = packing.is_leaking(model, 100)
    assert leaks_as_it_is == (family in ("opt", "biogpt"))
    assert packing.isolate(model, 100) == varlen.NAME
    documents = [torch.randint(3, 100, (length,)).tolist() for length in LENGTHS]
    row = list(chain(*documents))
    rows = [{"input_ids": row, "labels": row, "seq_lengths": list(LENGTHS)}]
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(rows)
    labels = batch.pop("labels")

    packed = gradients(model, _loss(model(**batch, use_cache=False).logits, labels))
    alone = gradients(model, sum(_loss(model(input_ids=torch.tensor([ids]), use_cache=False).logits, torch.tensor([ids])) for ids in documents))
    largest = max(float(gradient.abs().max()) for gradient in alone.values())  # some are zero but for rounding: those of keys' biases
    for name, gradient in alone.items():
        assert torch.allclose(packed[name], gradient, rtol=1e-4, atol=1e-6 * largest), name


@pytest.mark.parametrize("family", FIXED)
def test_a_family_that_leaks_whatever_is_tried_is_found_out(family: str) -> None:
    model = made(*FIXED[family]).eval()
    before = model.config._attn_implementation
    found = packing.isolate(model, 100)
    assert found != varlen.NAME
    assert (found is None) == (family != "gemma2, soft cap")
    assert model.config._attn_implementation == before
    assert torch.isfinite(model(input_ids=torch.arange(3, 20)[None]).logits).all()


@pytest.mark.parametrize("family", ["llama", "mistral, sliding", "gemma3, alternating", "opt"])
def test_what_is_not_packed_is_as_it_was(family: str) -> None:
    """Padded batches, single rows and generation with a cache."""
    model = made(*FAMILIES[family]).eval()
    tokens, mask = torch.randint(3, 100, (2, 20)), torch.ones(2, 20, dtype=torch.long)
    mask[1, 15:] = 0

    def answers() -> list[torch.Tensor]:
        with torch.no_grad():
            padded = model(input_ids=tokens, attention_mask=mask).logits[mask.bool()]
            single = model(input_ids=tokens[:1]).logits
            said = model.generate(tokens[:, :10], attention_mask=mask[:, :10], max_new_tokens=8, do_sample=False, pad_token_id=0)
        return [padded, single, said]

    usual = answers()
    varlen.register()
    model.set_attn_implementation(varlen.NAME)
    for ours, theirs in zip(answers(), usual, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits[0, :-1], labels[0, 1:], reduction="sum", ignore_index=-100)


def gradients(model: PreTrainedModel, loss: torch.Tensor | float) -> dict[str, torch.Tensor]:
    assert isinstance(loss, torch.Tensor)
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
