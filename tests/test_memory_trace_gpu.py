"""The forecast's CUDA side against peaks that others measured on a Tesla T4, without a GPU.

The 23 rows are of github.com/Anassbzdd/fitcheck (data/measurements; torch 2.10 to 2.14): one LoRA step of a real model in fp16 without
autocast, with the model's own head and loss, layers recomputed, AdamW over lists of tensors, adapters on the attention's four matrices.
With TUI_FT_SLOW=1 all of them are compared, else two.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import nn

from tui_ft.modeling.trace import kernels
from tui_ft.modeling.trace.fit import trace_all
from tui_ft.modeling.trace.setup import Setup
from tui_ft.modeling.trace.step import Options
from tui_ft.modeling.trace.tracker import Sizes

SLOW = os.environ.get("TUI_FT_SLOW") == "1"
MIB = 2**20
LIBRARIES = 16.25
"""MiB that cuBLAS keeps for itself through torch's allocator."""
CLOSE = 0.02

# hidden, intermediate, layers, heads, key-value heads, vocabulary, tied head
MODELS = {
    "qwen2.5-7b": ("Qwen2", 3584, 18944, 28, 28, 4, 152064, False),
    "qwen2.5-1.5b": ("Qwen2", 1536, 8960, 28, 12, 2, 151936, True),
    "mistral-7b": ("Llama", 4096, 14336, 32, 32, 8, 32768, False),
    "dscoder-1.3b": ("Llama", 2048, 5504, 24, 16, 16, 32256, False),
    "llama-3.2-3b": ("Llama", 3072, 8192, 28, 24, 8, 128256, True),
    "llama-3.2-1b": ("Llama", 2048, 8192, 16, 32, 8, 128256, True),
    "smollm2-1.7b": ("Llama", 2048, 8192, 24, 32, 32, 49152, True),
}
# model, rows, length, rank, quantization, attention, peak in MiB
MEASURED = [
    ("qwen2.5-7b", 1, 1024, 16, "nf4", "eager", 10584.77),
    ("mistral-7b", 1, 1024, 16, "nf4", "eager", 6190.58),
    ("dscoder-1.3b", 1, 1024, 16, "nf4", "eager", 1975.49),
    ("dscoder-1.3b", 1, 1024, 16, "nf4", "sdpa", 1971.74),
    ("mistral-7b", 1, 1024, 16, "nf4", "sdpa", 6056.28),
    ("qwen2.5-1.5b", 1, 1024, 16, "nf4", "sdpa", 4235.15),
    ("qwen2.5-1.5b", 1, 1024, 16, "nf4", "eager", 4235.78),
    ("qwen2.5-7b", 1, 1024, 16, "nf4", "sdpa", 10585.81),
    ("llama-3.2-3b", 1, 1024, 16, "nf4", "eager", 5498.54),
    ("llama-3.2-3b", 1, 1024, 16, "nf4", "sdpa", 5495.04),
    ("llama-3.2-1b", 1, 1024, 16, "nf4", "sdpa", 3723.08),
    ("llama-3.2-1b", 1, 1024, 16, "nf4", "eager", 3728.08),
    ("qwen2.5-1.5b", 1, 2048, 32, "nf4", "eager", 6850.05),
    ("qwen2.5-1.5b", 1, 2048, 32, "none", "eager", 7410.32),
    ("qwen2.5-1.5b", 1, 2048, 32, "nf4", "sdpa", 6831.17),
    ("qwen2.5-1.5b", 1, 2048, 32, "none", "sdpa", 7402.32),
    ("smollm2-1.7b", 1, 2048, 32, "nf4", "eager", 4323.01),
    ("smollm2-1.7b", 1, 2048, 32, "none", "eager", 5706.23),
    ("qwen2.5-1.5b", 2, 1024, 32, "nf4", "eager", 6838.54),
    ("qwen2.5-1.5b", 2, 1024, 32, "none", "eager", 7405.81),
    ("qwen2.5-1.5b", 2, 1024, 32, "nf4", "sdpa", 6827.67),
    ("qwen2.5-1.5b", 2, 1024, 32, "none", "sdpa", 7401.81),
    ("smollm2-1.7b", 4, 1024, 32, "nf4", "eager", 5297.27),
]
ALWAYS = (4, 21)


def config_of(name: str) -> Any:
    import transformers

    kind, hidden, inner, layers, heads, keys, vocabulary, tied = MODELS[name]
    return getattr(transformers, f"{kind}Config")(
        hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=keys,
        vocab_size=vocabulary, tie_word_embeddings=tied, max_position_embeddings=32768,
    )  # fmt: skip


def prepared_as_peft_does(model: nn.Module) -> None:
    """What `prepare_model_for_kbit_training` makes of the weights that are not quantized."""
    for parameter in model.parameters():
        if parameter.dtype == torch.float16:
            parameter.data = parameter.data.float()


@pytest.mark.parametrize("row", range(len(MEASURED)), ids=lambda row: "-".join(map(str, MEASURED[row][:6])))
def test_the_peak_is_what_a_t4_measured(row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if not SLOW and row not in ALWAYS:
        pytest.skip("set TUI_FT_SLOW=1 to compare all of them")
    name, rows, length, rank, quantization, attention, peak = MEASURED[row]
    monkeypatch.setattr(kernels, "FORCED_KERNEL", "efficient")  # a T4 is too old for FlashAttention
    setup = Setup(
        kind="lora", quantization=quantization, double_quantization=False, precision="fp16", attention=attention, optimizer="adamw_torch",
        targets=("q_proj", "k_proj", "v_proj", "o_proj"), activation_checkpointing=True, clipping=False,
    )  # fmt: skip
    quantized = quantization == "nf4"
    options = Options(autocast=False, fused_head=False, evaluation=False, **({"prepare": prepared_as_peft_does} if quantized else {}))
    moments = trace_all(config_of(name), setup, Sizes(rows, length, rank), padded=False, period=1, options=options)
    found = max(float(each.sum((1, 2)).max()) for each in moments.values()) / MIB + LIBRARIES
    print(f"{name} {rows} × {length} {quantization} {attention}: {found:.0f} MiB, measured {peak:.0f}: {found / peak - 1:+.2%}")
    assert found == pytest.approx(peak, rel=CLOSE)
