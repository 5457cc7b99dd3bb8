"""What a model consists of, told from its config alone: built on the meta device, no weight is read or allocated.

A child process: `python -m tui_ft.modeling.inventory` reads `{"name": …, "revision": …}` on stdin and prints
JSON. A problem is printed as `{"error": …, "hint": …}` with exit code 2.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tui_ft import collector, demo
from tui_ft.errors import NeedsCode, RequestError
from tui_ft.hub import network, weights
from tui_ft.text import one_line

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_CONTEXT_KEYS = ("n_positions", "max_position_embeddings", "seq_length")
_NO_TRAITS = {"use_cache", "return_dict", "output_hidden_states", "output_attentions", "is_encoder_decoder", "chunk_size_feed_forward", "torchscript"}
_USUAL_CONTEXT = 1024  # of models whose config does not say


def inventory(name: str, revision: str | None = None) -> dict[str, Any]:
    """Everything the planner needs to know of the model `name` (a Hub id, a folder, or the demo's).

    Raises:
        RequestError: unknown, gated or not a causal language model that the installed transformers can build.
    """
    return describe(on_meta(read_config(name, revision), name))


def read_config(name: str, revision: str | None = None) -> PreTrainedConfig:
    """The config of the model `name`: a Hub id, a folder, a GGUF file or the demo's.

    Raises:
        RequestError: there is none, or it is gated, needs code of its own, or is unknown to the installed transformers.
    """
    if name == demo.NAME:
        name = str(demo.model_folder())
    if not os.path.exists(name):  # noqa: PTH110 - Path.exists raises for odd names and closed parents
        network.settle()
    file = weights.gguf_file(name)
    return _gguf_config(file) if file else _config(name, revision)


def _config(name: str, revision: str | None) -> PreTrainedConfig:
    from transformers import AutoConfig

    folder = Path(name)
    is_folder = os.path.isdir(name)  # noqa: PTH112 - Path.is_dir raises for odd names and closed parents
    if folder.is_absolute() and not is_folder:
        raise RequestError(f"there is no model folder {one_line(name, 200)}", "Check the path, or give a Hub id.")
    held = {file for file in ("config.json", "adapter_config.json") if is_folder and (folder / file).is_file()}
    if held == {"adapter_config.json"}:
        raise RequestError(f"{one_line(name, 200)} holds an adapter, not a model", "Name the model it was trained on, or merge them first.")
    if is_folder and not held:
        raise RequestError(f"the folder {one_line(name, 200)} has no config.json", "Give the folder that a model was saved in.")
    try:
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds for what a foreign config can hold
        raise _explained(name, error) from None


def _gguf_config(file: Path) -> PreTrainedConfig:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(file.parent), gguf_file=file.name)
    except ImportError:
        raise RequestError("a GGUF file is read by the package gguf, which is not installed", "pip install gguf") from None
    except Exception as error:  # its reader meets a foreign file with errors of several libraries
        raise RequestError(
            f"{one_line(file, 200)} cannot be read as GGUF: {one_line(error, 300)}", "Copy it anew, or choose another model."
        ) from None


def on_meta(config: PreTrainedConfig, name: str) -> PreTrainedModel:
    """The model of `config` without any weights.

    Raises:
        RequestError: it is no causal language model, or its sizes contradict one another.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if getattr(config, "is_encoder_decoder", False):
        raise RequestError(f"{one_line(name, 100)} reads with one stack and writes with another", "Only decoder models (causal LMs) can be trained.")
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise _explained(name, error) from None


def _explained(name: str, error: Exception) -> RequestError:
    refusal, name, text = network.explained(error, name), one_line(name, 100), str(error)
    if refusal is not None:
        return refusal
    if "trust_remote_code" in text:
        return NeedsCode(f"the model {name} needs its own code to run", "Read that code first; consent is given for one commit when a run starts.")
    if "does not recognize this architecture" in text or "Unrecognized model" in text or "Unrecognized configuration" in text:
        return RequestError(f"the architecture of {name} is unknown to the installed transformers", f"{one_line(text, 300)}")
    if "offline" in text or "couldn't connect" in text:
        why = network.settle() or "the connection broke"
        return RequestError(
            f"the model {name} is not on this machine and the Hub cannot be reached: {why}", "Check the network, or name a local folder."
        )
    return RequestError(f"the config of {name} cannot be used: {one_line(text, 300)}", "Give a Hub id or a folder with config.json.")


def describe(model: PreTrainedModel) -> dict[str, Any]:
    """The inventory of a built model, its layers folded: `*` in a name stands for the indices in `layers`."""
    from torch.nn import Embedding

    from tui_ft.modeling import load, packing
    from tui_ft.modeling.structure import linear_modules, structure

    config, parts = model.config.get_text_config(), structure(model)
    head = model.get_submodule(parts.head) if parts.head else None
    head_weights = {id(parameter) for parameter in head.parameters()} if head is not None else set()
    norm_weights = {id(parameter) for name in parts.norms for parameter in model.get_submodule(name).parameters()}
    embeddings = {id(p) for module in model.modules() if isinstance(module, Embedding) for p in module.parameters()}
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():  # a tied weight comes once
        pattern, index = _fold(name, parts.layers)
        shape = list(parameter.shape)
        role = "head" if id(parameter) in head_weights else "norm" if id(parameter) in norm_weights else "layer" if index is not None else "other"
        entry = {"name": pattern, "shape": shape, "count": parameter.numel(), "role": role, "embedding": id(parameter) in embeddings, "layers": []}
        group = groups.setdefault(f"{pattern} {shape}", entry)
        if index is not None:
            group["layers"].append(index)
    linears: dict[str, dict[str, Any]] = {}
    for name, (width_in, width_out) in linear_modules(model).items():
        pattern, index = _fold(name, parts.layers)
        key = f"{pattern} {width_in} {width_out}"
        entry = linears.setdefault(key, {"name": pattern, "in": width_in, "out": width_out, "head": name == parts.head, "layers": []})
        if index is not None:
            entry["layers"].append(index)
    quantization = getattr(model.config, "quantization_config", None)
    method = quantization.get("quant_method") if isinstance(quantization, dict) else getattr(quantization, "quant_method", None)
    return {
        "architecture": type(model).__name__,
        "model_type": str(model.config.model_type),
        "context_length": next((value for key in _CONTEXT_KEYS if isinstance(value := getattr(config, key, None), int)), _USUAL_CONTEXT),
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "layers": parts.count,
        "layer_list": parts.layers,
        "dtype": str(config.dtype).removeprefix("torch.") if config.dtype else None,
        "tie_word_embeddings": getattr(head, "weight", None) is model.get_input_embeddings().weight,
        "attention": load.attention_of(model.config, "sdpa"),
        "packs": packing.can_pack(model),
        "heads": _heads(config),
        "traits": _traits(config),
        "quantized": str(getattr(method, "value", method)) if method else None,
        "parameters": list(groups.values()),
        "linears": list(linears.values()),
    }


def _heads(config: Any) -> list[int]:
    """Attention heads, those of keys and values, and a head's width; 0 where the config does not say."""
    heads = getattr(config, "num_attention_heads", None) or 0
    groups = getattr(config, "num_key_value_heads", None) or heads
    return [heads, groups, getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)]


def _traits(config: Any) -> str:
    """What else of a config decides the memory of a step: switches, choices and dropouts, but no sizes; equal traits take equal steps."""
    values = config.to_dict()
    sliding = values.pop("sliding_window", None) and values.get("use_sliding_window", True)
    found = {key: value for key, value in values.items() if isinstance(value, bool) or key.endswith(("_act", "activation_function"))}
    found |= {key: value > 0 for key, value in values.items() if isinstance(value, float) and ("drop" in key or "softcap" in key)}
    rotary = values.get("partial_rotary_factor") or (values.get("rope_parameters") or {}).get("partial_rotary_factor", 1.0)
    found |= {"rotary": rotary, "sliding": bool(sliding), "kinds": sorted(set(values.get("layer_types") or ())) if sliding else []}
    return json.dumps({key: value for key, value in sorted(found.items()) if key not in _NO_TRAITS})


def _fold(name: str, layers: str) -> tuple[str, int | None]:
    """`model.layers.3.mlp.up_proj` → (`model.layers.*.mlp.up_proj`, 3); a name outside the layers stays."""
    if not layers or not name.startswith(f"{layers}."):
        return name, None
    index, dot, rest = name[len(layers) + 1 :].partition(".")
    return f"{layers}.*{dot}{rest}", int(index)


def main() -> int:
    import logging

    collector.relax()
    logging.disable(logging.WARNING)  # transformers' advice is not about us, and stdout and stderr are read by a program
    try:
        request = json.loads(sys.stdin.read())
        print(json.dumps(inventory(request["name"], request.get("revision"))))
    except RequestError as error:
        print(json.dumps({"error": error.message, "hint": error.hint, "needs_code": isinstance(error, NeedsCode)}))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
