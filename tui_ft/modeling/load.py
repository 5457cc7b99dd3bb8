"""Load a causal language model as a plan says: dtype, quantization, attention, device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from tui_ft import demo
from tui_ft.errors import TuiFtError
from tui_ft.recipe.schema import Model
from tui_ft.text import one_line

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
VOCABULARY_MULTIPLE = 64
"""A resized embedding is rounded up to this many rows: matrix kernels are slow on odd sizes."""


def device() -> torch.device:
    """The device this process trains on: its one visible GPU, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def folder_or_id(model: Model) -> str:
    """What `from_pretrained` takes: the demo's folder (made on first use), a local folder, or a Hub id."""
    return str(demo.model_folder()) if model.name == demo.NAME else model.name


def load_model(
    model: Model,
    *,
    precision: str = "fp32",
    quantization: str = "none",
    double_quantization: bool = True,
    attention: str = "sdpa",
    vocabulary: int = 0,
    vocabulary_multiple: int = VOCABULARY_MULTIPLE,
    consent: dict[str, str] | None = None,
) -> PreTrainedModel:
    """The base model on this process's device, in evaluation mode.

    Args:
        precision: bf16, fp16 or fp32: the dtype of weights that are not quantized.
        quantization: none, int8 or nf4.
        vocabulary: rows the embedding must have at least (tokens of the tokenizer); it is resized only if it has fewer.
        vocabulary_multiple: what a resized embedding is rounded up to; 1 under an adapter, which other programs load onto a model
            resized to its tokenizer's very length.
        consent: repositories whose own code may run, each with its commit.

    Raises:
        TuiFtError: unknown model, damaged files, needs its own code, not a causal language model.
    """
    name = folder_or_id(model)
    commit = (consent or {}).get(model.name)
    trust: dict[str, Any] = {"trust_remote_code": True, "code_revision": commit} if commit else {"trust_remote_code": False}
    revision = commit or model.revision
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, **trust)
        loaded = AutoModelForCausalLM.from_pretrained(
            name,
            config=config,
            revision=revision,
            dtype=DTYPES[precision],
            attn_implementation=_supported_attention(attention),
            quantization_config=_quantization(quantization, double_quantization, precision),
            device_map={"": str(device())},
            **trust,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise _explained(model, error) from error
    if vocabulary > loaded.get_input_embeddings().num_embeddings:
        loaded.resize_token_embeddings(vocabulary, pad_to_multiple_of=vocabulary_multiple)
    if quantization == "nf4":
        _keep_trainable_layout(loaded)
    loaded.config.use_cache = False
    return loaded


def _keep_trainable_layout(model: PreTrainedModel) -> None:
    """Forbid bitsandbytes to repack 4-bit weights for its bf16 CPU kernel at the first evaluation.

    That kernel has no gradient, so training after an evaluation would silently go wrong, and it refuses layers
    whose width is no multiple of 32.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _supported_attention(name: str) -> str:
    return name if name in ("sdpa", "eager", "flash_attention_2", "flex_attention") else "sdpa"


def _quantization(kind: str, double: bool, precision: str) -> BitsAndBytesConfig | None:
    if kind == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=double,
            bnb_4bit_compute_dtype=DTYPES[precision],
        )
    return BitsAndBytesConfig(load_in_8bit=True) if kind == "int8" else None


def _explained(model: Model, error: Exception) -> TuiFtError:
    text = str(error)
    if "trust_remote_code" in text:
        return TuiFtError(
            f"{model.name} brings its own Python code, which is not run unasked",
            "Read that code, then give consent to one commit: `tui-ft run … --trust-remote-code REPO@COMMIT`.",
        )
    if "gated" in text.lower() or "401" in text or "403" in text:
        return TuiFtError(f"{model.name} is gated or private", "Accept its licence on its Hub page, then log in with `hf auth login`.")
    if not Path(model.name).exists() and isinstance(error, OSError):
        return TuiFtError(
            f"the model {model.name} was found neither on the Hub nor in the local cache", "Check the name and the network, or name a local folder."
        )
    return TuiFtError(f"the model {model.name} could not be loaded: {one_line(text, 400)}", "The run's log has the whole error.")
