"""Load a causal language model as a plan says: dtype, quantization, attention, device."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import logging

from tui_ft import demo
from tui_ft.errors import TuiFtError
from tui_ft.hub import network, weights
from tui_ft.modeling import varlen
from tui_ft.recipe.schema import Model
from tui_ft.text import one_line

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
TOLD_SECONDS = 0.2
"""How often the progress of loading is told at most."""
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
    on_progress: Callable[[int, int], None] | None = None,
) -> PreTrainedModel:
    """The base model on this process's device, in evaluation mode; each weight goes there straight from its file.

    Args:
        precision: bf16, fp16 or fp32: the dtype of weights that are not quantized.
        quantization: none, int8 or nf4.
        attention: sdpa, eager, or varlen, which is sdpa until the model has shown that it keeps packed documents apart.
        vocabulary: rows the embedding must have at least (tokens of the tokenizer); it is resized only if it has fewer.
        vocabulary_multiple: what a resized embedding is rounded up to; 1 under an adapter, which other programs load onto a model
            resized to its tokenizer's very length.
        consent: repositories whose own code may run, each with its commit.
        on_progress: is given the weights loaded so far and all of them; what it raises ends the loading.

    Raises:
        TuiFtError: unknown model, damaged files, needs its own code, not a causal language model.
    """
    commit = (consent or {}).get(model.name)
    wanted = {
        "dtype": DTYPES[precision],
        "attn_implementation": attention,
        "quantization_config": _quantization(quantization, double_quantization, precision),
        "device_map": {"": str(device())},
    }
    try:
        file = weights.gguf_file(model.name)
        with _telling(on_progress):
            loaded = _from_gguf(file, wanted) if file else _from_folder_or_hub(folder_or_id(model), commit or model.revision, commit, wanted)
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


@contextmanager
def _telling(on_progress: Callable[[int, int], None] | None) -> Iterator[None]:
    """While it lasts, the library's bar over the weights of a model tells `on_progress`; its other bars stay as they are."""
    set_hook = getattr(logging, "set_tqdm_hook", None)  # older versions load without a word
    if on_progress is None or set_hook is None:
        yield
        return

    def hook(bar: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        counts_weights = arguments and options.get("desc") == "Loading weights" and hasattr(arguments[0], "__len__")
        return _counted(arguments[0], on_progress) if counts_weights else bar(*arguments, **options)

    before = set_hook(hook)
    try:
        yield
    finally:
        set_hook(before)


def _counted(weights: Iterable[Any], on_progress: Callable[[int, int], None]) -> Iterator[Any]:
    weights = list(weights)
    told = -TOLD_SECONDS
    for done, weight in enumerate(weights):
        if time.monotonic() - told >= TOLD_SECONDS:
            told = time.monotonic()
            on_progress(done, len(weights))
        yield weight
    on_progress(len(weights), len(weights))


def _from_folder_or_hub(name: str, revision: str | None, commit: str | None, wanted: dict[str, Any]) -> PreTrainedModel:
    trust: dict[str, Any] = {"trust_remote_code": True, "code_revision": commit} if commit else {"trust_remote_code": False}
    config = AutoConfig.from_pretrained(name, revision=revision, **trust)
    wanted = {**wanted, "attn_implementation": attention_of(config, wanted["attn_implementation"])}
    return AutoModelForCausalLM.from_pretrained(name, config=config, revision=revision, **wanted, **trust)


def _from_gguf(file: Path, wanted: dict[str, Any]) -> PreTrainedModel:
    """The model of a GGUF file as a usual one: unpacked, then built anew from its weights, since the first cannot be saved, trained or quantized.

    Costs main memory for all weights in the wanted dtype, and about half a minute for a large vocabulary.
    """
    config_of_gguf = getattr(transformers, "GgufConfig", None)  # older versions always unpack
    unpack = {"quantization_config": config_of_gguf(dequantize=True)} if config_of_gguf else {}
    try:
        unpacked = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=wanted["dtype"], **unpack)
    except (ImportError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # its reader meets a foreign file with errors of several libraries
        raise TuiFtError(f"{one_line(file, 200)} cannot be read as GGUF: {one_line(error, 300)}", "Copy it anew.") from error
    config = copy.deepcopy(unpacked.config)
    wanted = {**wanted, "attn_implementation": attention_of(config, wanted["attn_implementation"])}
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    loaded = type(unpacked).from_pretrained(None, config=config, state_dict=unpacked.state_dict(), **wanted)
    loaded.config._name_or_path = loaded.name_or_path = str(file)  # what an adapter names as its base
    return loaded  # type: ignore[no-any-return]


def _keep_trainable_layout(model: PreTrainedModel) -> None:
    """Forbid bitsandbytes to repack 4-bit weights for its bf16 CPU kernel at the first evaluation.

    That kernel has no gradient, so training after an evaluation would silently go wrong, and it refuses layers
    whose width is no multiple of 32.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def attention_of(config: PreTrainedConfig, wanted: str) -> str:
    """`wanted`, or `eager` where this model's class has no other: its scores have a term that torch's fused attention does not know.

    The varlen attention is given to a loaded model, once it has shown that it works (`packing.isolate`).
    """
    usual = "sdpa" if wanted == varlen.NAME else wanted
    found = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return "eager" if usual == "sdpa" and found is not None and not found._supports_sdpa else usual


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
    refusal = network.explained(error, model.name)
    if refusal is not None:
        return refusal
    if isinstance(error, ImportError) and "gguf" in text.lower():
        return TuiFtError("a GGUF file is read by the package gguf, which is not installed", "pip install gguf")
    return TuiFtError(f"the model {model.name} could not be loaded: {one_line(text, 400)}", "The run's log has the whole error.")
